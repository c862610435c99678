"""Where a rollout is: the fold of its events over its plan. `engine.fold` makes it, nobody else.

    status      running ⇄ paused · running → converging → succeeded
                running | converging → halted → rolling_back → rolled_back · any of them → aborted
    phase       of the wave that is going on: waiting for approval, pushing, soaking
    a board     waiting → queued → pushing → serving · failed · superseded, and from serving → undoing → undone · stuck
                (queued → undoing where a push that was missed may have gone through)

`converging`: every wave has passed, and boards that were off are still to come.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tflotilla.host.rollouts.events import Judged
from tflotilla.host.rollouts.evidence import Evidence
from tflotilla.host.rollouts.plan import Plan
from tflotilla.shared.contract.deployment import ShadowReport


class Status(str, enum.Enum):
    """Where a rollout is (hawkBit's words where it has one)."""

    RUNNING = "running"
    PAUSED = "paused"
    CONVERGING = "converging"
    HALTED = "halted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUCCEEDED = "succeeded"

    @property
    def over(self) -> bool:
        """Whether nothing follows by itself: only a person's `retry` or `rollback` can."""
        return self in (Status.HALTED, Status.ROLLED_BACK, Status.ABORTED, Status.SUCCEEDED)


class BoardPhase(str, enum.Enum):
    """Where one board of a rollout is."""

    WAITING = "waiting"
    QUEUED = "queued"
    PUSHING = "pushing"
    SERVING = "serving"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    UNDOING = "undoing"
    UNDONE = "undone"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardProgress:
    """One board; times are Unix seconds."""

    phase: BoardPhase = BoardPhase.WAITING
    #: None for boards that are in no wave.
    wave: int | None = None
    attempts: int = 0
    #: How often a person asked for it again: part of the deployment's id.
    round: int = 0
    deployment: str | None = None
    #: How often in a row it was missed, and how often an undo was tried.
    misses: int = 0
    undo_attempts: int = 0
    #: A deployment may have begun there, so that undoing everything has to ask it too.
    begun: bool = False
    #: Not before, unless its birth message comes.
    again_at: float = 0.0
    #: Why it is queued, failed or stuck.
    error: str | None = None
    detail: str = ""
    #: When the bundle came into service, and what did before.
    since: float | None = None
    before: str | None = None
    #: Whether the plan asked the board, what served there by then, and whether that is of the bundle's model, as far as
    #: is known.
    surveyed: bool = True
    planned_before: str | None = None
    same_model: bool = True
    #: False: it had the bundle in service already when it was asked.
    changed: bool = True
    baseline: Evidence | None = None
    shadow: ShadowReport | None = None
    #: The gates were held against it since.
    judged: bool = False
    #: It broke a gate: undone, or to be.
    misbehaved: bool = False
    #: An undo is wanted and not done yet.
    undo: bool = False
    bytes_sent: int = 0


WavePhase = Literal["approval", "pushing", "soaking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout as far as its events tell."""

    plan: Plan
    status: Status = Status.RUNNING
    #: What it was before it was paused.
    resumes_as: Status = Status.RUNNING
    #: Index of the wave that is going on; the number of waves once all have passed.
    wave: int = 0
    phase: WavePhase = "approval"
    #: When that wave began (Unix seconds); None while it waits for approval.
    began_at: float | None = None
    #: When somebody began to conduct it anew: what was heard before that is forgotten, so waits begin there again.
    resumed_at: float = 0.0
    approved: frozenset[int] = frozenset()
    soak_until: float | None = None
    boards: Mapping[str, BoardProgress] = field(default_factory=dict)
    #: Board → wave of those that are not settled: queued, under way, to be judged or undone. Kept beside `boards`, so
    #: that what follows is found without looking at the others; as are the numbers of boards per wave that failed or
    #: misbehaved, and that a newer rollout took.
    open: Mapping[str, int] = field(default_factory=dict)
    bad: Mapping[int, int] = field(default_factory=dict)
    taken: Mapping[int, int] = field(default_factory=dict)
    #: Whether a rollback is of every board, not only of those that misbehaved.
    undoes_all: bool = False
    verdicts: tuple[Judged, ...] = ()
    #: Why it halted.
    reason: str = ""
    #: How many events made it.
    events: int = 0
