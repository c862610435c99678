"""What each event makes of one board of a rollout: the table of (phase, event).

Rules it keeps: what stands in no row changes nothing, so late and repeated events are harmless; what a board says of
itself is true whatever the rollout's status is by then.
What it does NOT do: look at the other boards, or at the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.events import (
    Born,
    Claimed,
    Deployed,
    Failed,
    Missed,
    UndoClaimed,
    UndoFailed,
    UndoMissed,
    Undone,
)
from tflotilla.host.rollouts.rollout import BoardPhase, BoardProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from tflotilla.host.rollouts.events import Event

_P = BoardPhase
NOTHING_BEFORE = "nothing served there before it, so there is nothing to bring back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a board's transition needs to know of its rollout."""

    bundle: str
    undoes_all: bool
    aborted: bool
    #: Boards may be claimed.
    pushes: bool


def moved(around: Around, board: BoardProgress, event: Event, at: float) -> BoardProgress:
    """Return the board after an event that names it; the same one where the event doesn't fit."""
    move = _TABLE.get((board.phase, type(event)))
    return board if move is None else move(around, board, event, at)


def is_open(progress: BoardProgress) -> bool:
    """Whether something is still to happen with a board by itself."""
    if progress.phase is _P.SERVING:
        return progress.undo or not progress.judged
    return progress.phase in (_P.QUEUED, _P.PUSHING, _P.UNDOING)


def is_bad(progress: BoardProgress) -> bool:
    """Whether a board counts for the error threshold."""
    return progress.phase is _P.FAILED or progress.misbehaved


def is_moving(board: BoardProgress) -> bool:
    """Whether a job is under way for a board, or an undo is wanted."""
    return board.undo or board.phase in (_P.PUSHING, _P.UNDOING)


def _claimed(around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401 - see the table
    if not around.pushes:
        # A person stopped it while the claim was being written: void, nobody has begun it.
        return board
    return replace(
        board,
        phase=_P.PUSHING,
        attempts=event.attempt,
        deployment=event.deployment,
        baseline=event.baseline if event.baseline is not None else board.baseline,
    )


def _deployed(around: Around, board: BoardProgress, event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    before = event.before
    if before is None and not event.changed and board.planned_before != around.bundle:
        # It was deployed by an attempt of which nobody heard the end; what was there is what the plan found.
        before = board.planned_before
    after = replace(
        board,
        phase=_P.SERVING,
        since=at,
        before=before,
        shadow=event.shadow,
        changed=event.changed,
        begun=True,
        misses=0,
        again_at=0.0,
        error=None,
        detail=event.detail,
        bytes_sent=board.bytes_sent + event.bytes_sent,
    )
    return brought_back(after) if around.undoes_all else after


def _deployed_late(around: Around, board: BoardProgress, event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    # The end of a claim that was void already. Without one it is somebody else's.
    return _deployed(around, board, event, at) if board.begun else board


def _missed(around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401
    begun = board.begun or event.begun
    return replace(
        board,
        phase=_P.QUEUED,
        misses=board.misses + 1,
        again_at=event.again_at,
        error=event.error,
        detail=event.detail,
        begun=begun,
        undo=begun and around.undoes_all,
    )


def _born(_around: Around, board: BoardProgress, _event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    return replace(board, again_at=at, misses=0)


def _born_serving(around: Around, board: BoardProgress, event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    return _born(around, board, event, at) if board.undo else board


def _failed(_around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401
    return replace(board, phase=_P.FAILED, error=event.error, detail=event.detail, undo=False, again_at=0.0)


def _failed_late(around: Around, board: BoardProgress, event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    return _failed(around, board, event, at) if board.begun else board


def _undo_claimed(_around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401
    return replace(board, phase=_P.UNDOING, undo_attempts=event.attempt) if board.undo else board


def _undone(_around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401
    # Why it was brought back stays to be read; why it could not be at first doesn't.
    error, why = (board.error, board.detail) if board.misbehaved and not board.misses else (None, "")
    detail = event.detail or why
    return replace(board, phase=_P.UNDONE, undo=False, begun=False, misses=0, again_at=0.0, error=error, detail=detail)


def _undone_late(around: Around, board: BoardProgress, event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    return _undone(around, board, event, at) if board.undo else board


def _undo_missed(around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401
    return replace(
        board,
        phase=waits_for_undo(board),
        undo=not around.aborted,
        misses=board.misses + 1,
        again_at=event.again_at,
        error=event.error,
        detail=event.detail,
    )


def _undo_failed(_around: Around, board: BoardProgress, event: Any, _at: float) -> BoardProgress:  # noqa: ANN401
    return replace(board, phase=_P.STUCK, undo=False, error=event.error, detail=event.detail, again_at=0.0)


def _undo_failed_late(around: Around, board: BoardProgress, event: Any, at: float) -> BoardProgress:  # noqa: ANN401
    return _undo_failed(around, board, event, at) if board.undo else board


def waits_for_undo(board: BoardProgress) -> BoardPhase:
    """Return where a board waits for its undo: one that was only asked, and never said that it serves, is queued."""
    return _P.QUEUED if board.since is None else _P.SERVING


def brought_back(board: BoardProgress) -> BoardProgress:
    """Return a board of which what served before is wanted back."""
    if board.phase is _P.SERVING and board.before is None:
        return replace(board, phase=_P.STUCK, error="ConflictError", detail=NOTHING_BEFORE)
    wanted = board.phase in (_P.SERVING, _P.QUEUED) and not board.undo
    if wanted and (board.phase is _P.SERVING or board.begun):
        return replace(board, undo=True, misses=0, again_at=0.0)
    return board


_TABLE: Mapping[tuple[BoardPhase, type[Event]], Callable[[Around, BoardProgress, Any, float], BoardProgress]] = {
    # Nothing leaves WAITING but by its wave, and by a newer rollout: it was asked for nothing.
    (_P.QUEUED, Claimed): _claimed,
    (_P.QUEUED, Born): _born,
    (_P.QUEUED, Deployed): _deployed_late,
    (_P.QUEUED, Failed): _failed_late,
    (_P.QUEUED, UndoClaimed): _undo_claimed,
    (_P.QUEUED, Undone): _undone_late,
    (_P.QUEUED, UndoFailed): _undo_failed_late,
    # No Missed, UndoMissed in QUEUED: it waits already.
    (_P.PUSHING, Deployed): _deployed,
    (_P.PUSHING, Missed): _missed,
    (_P.PUSHING, Failed): _failed,
    # No Born in PUSHING: an agent that restarts in the middle is the push's to notice. No Claimed: told twice.
    (_P.SERVING, UndoClaimed): _undo_claimed,
    (_P.SERVING, Born): _born_serving,
    (_P.SERVING, Undone): _undone_late,
    (_P.SERVING, UndoFailed): _undo_failed_late,
    # No Deployed, Failed, Missed in SERVING: told twice.
    (_P.UNDOING, Undone): _undone,
    (_P.UNDOING, UndoMissed): _undo_missed,
    (_P.UNDOING, UndoFailed): _undo_failed,
    # Nothing leaves FAILED, UNDONE and STUCK but by a person's word, and SUPERSEDED never.
}
#: The events that name one board.
OF_A_BOARD = frozenset({Claimed, Deployed, Missed, Born, Failed, UndoClaimed, Undone, UndoMissed, UndoFailed})
