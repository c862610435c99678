"""The options with which commands ask what was collected: which store, which boards, which span of time."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import quantities, telemetry_store
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.store.database import DatabaseStore

_DAY_S = 86400.0
_EVERYBODY = "all"
#: What came while we looked counts; a board's clock may be a little ahead.
_AHEAD_S = 60.0

Store = Annotated[
    str | None,
    typer.Option("--store", metavar="FILE|URL", help="Where it is kept; default [telemetry] store in fleet.toml."),
]
Since = Annotated[
    str, typer.Option("--since", metavar="AGE|TIME", help="90s, 15min, 1h, 7d ago, or 2025-06-16T12:00 (UTC).")
]
Until = Annotated[str | None, typer.Option("--until", metavar="AGE|TIME", help="As --since; default now.")]


def opened(fleet: Fleet | None, given: str | None) -> DatabaseStore:
    """Open the store to read from it. Raises InputError, UsageError."""
    from tflotilla.host.telemetry.store import database

    if given is None and fleet is None:
        raise UsageError("say where the store is: --store FILE, or --fleet fleet.toml")
    url = given if fleet is None else telemetry_store.url(fleet, given)
    return database.open_store(url or "", where="--store" if given else "[telemetry] store")


def boards_of(path: Path | None, selector: str, *, store: str | None) -> tuple[Fleet | None, frozenset[str] | None]:
    """Return the fleet and the boards that a selector picks; None is whatever the store holds.

    A store that is given can be asked without a fleet file. Raises ConfigError, UsageError.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet

    try:
        fleet = Fleet.load(path)
    except ConfigError:
        if path is not None or store is None or selector != _EVERYBODY:
            raise
        return None, None
    # Boards that were taken out of the fleet have a history too.
    return fleet, None if selector == _EVERYBODY else frozenset(fleet.select(selector))


def span(since: str, until: str | None) -> tuple[float, float]:
    """Read --since and --until as Unix seconds. Raises UsageError."""
    begins = _moment("--since", since)
    ends = time.time() + _AHEAD_S if until is None else _moment("--until", until)
    if not begins < ends:
        raise UsageError(f"--since {since} must be before --until {until or 'now'}")
    return begins, ends


def _moment(option: str, text: str) -> float:
    """Read an age (`1h`, `7d`: that long ago) or a time (ISO 8601; UTC if it doesn't say). Raises UsageError."""
    text = text.strip()
    wrong = UsageError(f"{option} must be like 15min, 1h, 7d or 2025-06-16T12:00, not {text!r}")
    try:
        if text.lower().endswith("d"):
            found = time.time() - float(text[:-1]) * _DAY_S
        elif "-" in text:
            moment = datetime.datetime.fromisoformat(text)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
        else:
            found = time.time() - (quantities.seconds(option, text) or 0.0)
    except (UsageError, ValueError, OverflowError) as error:
        raise wrong from error
    if not 0 <= found < 1 << 33:  # the years 1970 to 2242
        raise wrong
    return found
