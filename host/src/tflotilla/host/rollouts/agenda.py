"""What the boards of a rollout that are not settled wait for, found by looking at each of them once.

What it does NOT do: decide (`engine`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.rollout import BoardPhase

if TYPE_CHECKING:
    from tflotilla.host.rollouts.rollout import BoardProgress, Rollout

_P = BoardPhase


@dataclass(slots=True, kw_only=True)
class Agenda:
    """Boards by what they wait for, in the order in which they were opened."""

    #: To be undone, and due.
    undo: list[str] = field(default_factory=list)
    #: Queued and due: never missed, and missed.
    fresh: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    #: How many boards of the wave that is going on must come to an end before it soaks.
    awaited: int = 0
    #: Serving for as long as they must, and not judged.
    soaked: list[str] = field(default_factory=list)
    #: Wave → how many of its boards are off.
    off: dict[int, int] = field(default_factory=dict)
    #: Whether anything is under way, or to be undone.
    moving: bool = False
    #: When the next of those that wait is due.
    wakes_at: float | None = None

    def wait(self, until: float) -> None:
        """Note a time to come."""
        if self.wakes_at is None or until < self.wakes_at:
            self.wakes_at = until


def look(rollout: Rollout, now: float) -> Agenda:
    """Look at every board that is not settled."""
    agenda = Agenda()
    boards, current, soak_s = rollout.boards, rollout.wave, rollout.plan.policy.soak_s
    for name, wave in rollout.open.items():
        board = boards[name]
        phase = board.phase
        if board.undo or phase is _P.PUSHING or phase is _P.UNDOING:
            agenda.moving = True
        if phase is _P.SERVING and not board.undo:
            until, due = listened_since(rollout, board) + soak_s, agenda.soaked
        elif phase is _P.UNDOING:
            continue
        elif board.undo:
            until, due = board.again_at, agenda.undo
        elif board.error is not None:
            # Missed once: it holds nobody up any more, even while it is tried again.
            agenda.off[wave] = agenda.off.get(wave, 0) + 1
            until, due = board.again_at, agenda.again
        else:
            agenda.awaited += wave == current
            until, due = board.again_at, agenda.fresh
        if phase is _P.PUSHING:
            continue
        if until <= now:
            due.append(name)
        else:
            agenda.wait(until)
    return agenda


def listened_since(rollout: Rollout, board: BoardProgress) -> float:
    """Return since when a board's telemetry of the bundle was listened to without a break."""
    return max(board.since or 0.0, rollout.resumed_at)
