"""How the `fleet` commands say what is known of boards. Pure: the time now is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.host.fleet.inventory.contacts import Contact, Known
    from tflotilla.host.fleet.inventory.entries import BoardEntry
    from tflotilla.host.fleet.inventory.reconciliation import Aspect
    from tflotilla.shared.contract.messages import ServedBundle

COLUMNS = ("board", "labels", "online", "last seen", "bundle", "agent", "runtime", "arch", "facts")
_STEPS = ((60, "s", 1), (3600, "min", 60), (2 * 86400, "h", 3600))


def ago(then: float | None, now: float) -> str:
    """Return how long ago something was: `12 s`, `5 min`, `3 h`, `4 days`; `never`."""
    if then is None:
        return "never"
    seconds = max(0.0, now - then)
    for limit, unit, size in _STEPS:
        if seconds < limit:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // 86400)} days"


def address(entry: BoardEntry) -> str:
    """Return `user@host:port` as far as fleet.toml says it."""
    host = f"[{entry.host}]" if entry.port and ":" in entry.host else entry.host
    return "".join((f"{entry.user}@" if entry.user else "", host, f":{entry.port}" if entry.port else ""))


def tags(entry: BoardEntry, groups: Iterable[str]) -> str:
    """Return groups and labels as a selector would name them."""
    return " ".join((*(f"@{group}" for group in groups), *(f"{key}={value}" for key, value in entry.labels.items())))


def online(contact: Contact) -> str:
    """Return `yes`, `no`, or `?` where nobody ever asked; a board that refuses us is there."""
    if contact.online is None:
        return "?"
    return ("refuses us" if contact.reason else "yes") if contact.online else "no"


def title(bundle: ServedBundle | None) -> str:
    """Return what people call a bundle."""
    return f"{bundle.name}-{bundle.version}" if bundle is not None else "-"


def row(name: str, entry: BoardEntry, groups: Iterable[str], known: Known, now: float) -> tuple[str, ...]:
    """Return one board's cells, one per COLUMNS."""
    contact, facts = known.contact, known.facts
    return (
        name,
        tags(entry, groups),
        online(contact),
        ago(contact.seen, now),
        title(contact.serving) if contact.said is not None else "?",
        contact.agent or "?",
        (" ".join(map(str, facts.runtimes)) or "none") if facts is not None else "?",
        facts.arch if facts is not None else "?",
        ago(known.asked_at, now) if facts is not None else "never asked",
    )


def aspect(said: Aspect) -> str:
    """Return `tiny-1.0.1, should be tiny-1.0.2` where it differs, else what was reported."""
    reported = said.reported or "-"
    return f"{reported}, should be {said.desired}" if said.differs else reported
