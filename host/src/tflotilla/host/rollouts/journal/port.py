"""The port of the journal: what outlives the host's process. `database.py` is its adapter, for SQLite and PostgreSQL.

Rules its implementations keep: what `append` returned from is durable; a rollout has one conductor at a time, and an
append by one whose lease is lost raises; nothing is ever changed or deleted, but leases; the audit log is a chain in
which each entry holds the hash of the one before, so that a change of any entry shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tflotilla.host.rollouts.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.host.rollouts.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as the journal has it: `number` counts from 1 within the rollout, `at` is Unix seconds."""

    number: int
    at: float
    by: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to conduct one rollout, as long as it is renewed. `token` fences off a conductor that lost it."""

    rollout: str
    holder: str
    token: int
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what when; `previous` and `digest` are SHA-256 in hex, see `audit.chained`."""

    number: int
    at: float
    by: str
    action: str
    rollout: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    previous: str
    digest: str


class Journal(Protocol):
    """May be opened by many processes at once. Everything may raise InputError (disk, server, damaged file)."""

    def create(self, plan: Plan, *, by: str, at: float) -> None:
        """Keep a plan and begin its story. Raises ConflictError: there is such a rollout."""
        ...

    def rollouts(self) -> tuple[str, ...]:
        """Return the names of all rollouts, oldest first."""
        ...

    def lengths(self) -> Mapping[str, int]:
        """Return how many events each rollout has, oldest first: who remembers them sees at once where one came."""
        ...

    def plan(self, rollout: str) -> Plan:
        """Return a plan. Raises UsageError naming the last rollouts when there is none of that name."""
        ...

    def events(self, rollout: str, *, after: int = 0) -> tuple[Recorded, ...]:
        """Return what happened, in order, beginning after that number."""
        ...

    def append(
        self, rollout: str, events: Sequence[Event], *, by: str, at: float, lease: Lease | None = None
    ) -> tuple[Recorded, ...]:
        """Add events, all or none, durably. People's events come without a lease.

        Raises:
            ConflictError: the lease was lost to another conductor.

        """
        ...

    def take(self, rollout: str, *, holder: str, at: float, for_s: float) -> Lease:
        """Become the conductor of a rollout; `holder` is `user@host pid`.

        Raises:
            BusyError: another one conducts it, named; one of this machine whose process is gone doesn't count.

        """
        ...

    def renew(self, lease: Lease, *, at: float, for_s: float) -> Lease:
        """Keep it. Raises ConflictError when it was lost."""
        ...

    def release(self, lease: Lease) -> None:
        """Give it back, if it is still ours."""
        ...

    def conductor(self, rollout: str, *, at: float) -> str | None:
        """Return who conducts a rollout now."""
        ...

    def audit(self, action: str, *, by: str, at: float, rollout: str | None, detail: Mapping[str, Any]) -> AuditEntry:
        """Add to the audit log, durably."""
        ...

    def audit_log(self) -> Iterable[AuditEntry]:
        """Return the audit log, oldest first."""
        ...

    def audit_fault(self) -> str | None:
        """Return what is wrong with the audit log, naming the first entry that is broken; None when nothing is."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
