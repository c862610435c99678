"""Where a fleet's telemetry is kept: `--store`, else `[telemetry] store` in fleet.toml, else a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.store.database import DatabaseStore

_DAY_S = 86400.0
_MIB = 1 << 20


def url(fleet: Fleet, given: str | None) -> str:
    """Return the store's URL, or the path of its file."""
    from tflotilla.host.telemetry.store import database

    if given is not None:
        return given
    said = fleet.telemetry.store
    if said is None:
        return str(fleet.state / database.FILE)
    return said if "://" in said else str(fleet.folder / said)


def opened(fleet: Fleet, given: str | None) -> DatabaseStore:
    """Open the store to write into it, and to forget what fleet.toml says. Raises InputError."""
    from tflotilla.host.telemetry.store import database
    from tflotilla.host.telemetry.store.retention import Retention

    kept = fleet.telemetry
    retention = Retention(
        raw_s=kept.raw_days * _DAY_S,
        reports_s=kept.report_days * _DAY_S,
        minutes_s=kept.minute_days * _DAY_S,
        hours_s=kept.hour_days * _DAY_S,
        days_s=None if kept.day_days is None else kept.day_days * _DAY_S,
        most_bytes=int(kept.max_mib * _MIB),
    )
    where = "[telemetry] store" if given is None else "--store"
    return database.open_store(url(fleet, given), retention=retention, where=where)
