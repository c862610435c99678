"""What each event makes of a rollout: the table of (status, event). Boards have one of their own, `board_transitions`.

Rules it keeps: an event that stands in no row changes nothing but the count, so late and repeated ones are harmless.
What it does NOT do: decide what follows (`engine`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.deciding.board_transitions import (
    OF_A_BOARD,
    Around,
    brought_back,
    is_bad,
    is_moving,
    is_open,
    moved,
    waits_for_undo,
)
from tflotilla.host.rollouts.events import (
    Aborted,
    Approved,
    Finished,
    Halted,
    Judged,
    Paused,
    Resumed,
    Retried,
    RollbackAsked,
    SoakBegan,
    Superseded,
    WaveBegan,
)
from tflotilla.host.rollouts.rollout import BoardPhase, BoardProgress, Rollout, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.plan import Plan
    from tflotilla.host.rollouts.rollout import WavePhase

_P = BoardPhase
_S = Status


class Draft:
    """A rollout that is being changed; `finished` gives the value. Copies the boards once, when the first changes."""

    def __init__(self, rollout: Rollout) -> None:
        """Begin with a rollout, which stays as it is."""
        self.plan: Plan = rollout.plan
        self.status = rollout.status
        self.resumes_as = rollout.resumes_as
        self.wave = rollout.wave
        self.phase: WavePhase = rollout.phase
        self.began_at = rollout.began_at
        self.resumed_at = rollout.resumed_at
        self.approved = rollout.approved
        self.soak_until = rollout.soak_until
        self.boards: Mapping[str, BoardProgress] = rollout.boards
        self.undoes_all = rollout.undoes_all
        self.verdicts = rollout.verdicts
        self.reason = rollout.reason
        self.events = rollout.events
        self._rollout = rollout
        self._changed: dict[str, BoardProgress] | None = None
        self._open: dict[str, int] = {}
        self._bad: dict[int, int] = {}
        self._taken: dict[int, int] = {}

    def apply(self, event: Event, at: float) -> None:
        """Change by one event of that time."""
        self.events += 1
        kind = type(event)
        if kind in OF_A_BOARD:
            self._move(event, at)
            return
        handle = _ROLLOUTS.get((self.status, kind))
        if handle is not None:
            handle(self, event, at)

    def _move(self, event: Any, at: float) -> None:  # noqa: ANN401 - one of those that name a board
        board = self.boards.get(event.board)
        if board is None or board.wave is None:
            return
        around = Around(
            bundle=self.plan.bundle,
            undoes_all=self.undoes_all,
            aborted=self.status is _S.ABORTED,
            pushes=self.status in (_S.RUNNING, _S.CONVERGING),
        )
        after = moved(around, board, event, at)
        if after is board:
            return
        self.put(event.board, after)
        if self.status is Status.ROLLED_BACK and after.undo:
            # The late end of a push that nobody waited for any more: there is something to bring back again.
            self.status = Status.ROLLING_BACK

    def put(self, board: str, after: BoardProgress) -> None:
        """Set a board's progress, and keep the counts beside it."""
        if self._changed is None:
            self._changed = dict(self.boards)
            self.boards = self._changed
            self._open = dict(self._rollout.open)
            self._bad, self._taken = dict(self._rollout.bad), dict(self._rollout.taken)
        before = self._changed[board]
        self._changed[board] = after
        wave = after.wave
        if wave is None:
            return
        _count(self._bad, wave, is_bad(after) - is_bad(before))
        _count(self._taken, wave, (after.phase is _P.SUPERSEDED) - (before.phase is _P.SUPERSEDED))
        if is_open(after):
            self._open[board] = wave
        else:
            self._open.pop(board, None)

    def finished(self) -> Rollout:
        """Return the rollout as it is now."""
        rollout = replace(
            self._rollout,
            status=self.status,
            resumes_as=self.resumes_as,
            wave=self.wave,
            phase=self.phase,
            began_at=self.began_at,
            resumed_at=self.resumed_at,
            approved=self.approved,
            soak_until=self.soak_until,
            undoes_all=self.undoes_all,
            verdicts=self.verdicts,
            reason=self.reason,
            events=self.events,
        )
        if self._changed is None:
            return rollout
        return replace(rollout, boards=self._changed, open=self._open, bad=self._bad, taken=self._taken)


def _count(counts: dict[int, int], wave: int, change: int) -> None:
    if change:
        counts[wave] = counts.get(wave, 0) + change
        if not counts[wave]:
            del counts[wave]


# The whole


def _wave_began(draft: Draft, event: Any, at: float) -> None:  # noqa: ANN401
    if event.wave != draft.wave or draft.phase != "approval" or event.wave >= len(draft.plan.waves):
        return
    draft.phase, draft.began_at, draft.soak_until = "pushing", at, None
    for name in draft.plan.waves[event.wave].boards:
        board = draft.boards[name]
        if board.phase is _P.WAITING:
            draft.put(name, replace(board, phase=_P.QUEUED))


def _soak_began(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    if event.wave == draft.wave and draft.phase == "pushing":
        draft.phase, draft.soak_until = "soaking", event.until


def _judged(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    of_wave = event.wave is not None
    if of_wave and (event.wave != draft.wave or draft.phase != "soaking" or draft.soak_until is None):
        return
    draft.verdicts = (*draft.verdicts, event)
    misbehaved = frozenset(event.misbehaved)
    why: dict[str, list[str]] = {}
    for result in event.results:
        if not result.ok:
            why.setdefault(result.board, []).append(f"{result.gate}: {result.figure}")
    for name in event.boards:
        board = draft.boards.get(name)
        if board is None or board.phase is not _P.SERVING:
            continue
        if name in misbehaved:
            detail = "; ".join(why.get(name, ()))
            after = replace(board, judged=True, misbehaved=True, error="ProbeError", detail=detail)
            draft.put(name, brought_back(after))
        elif not board.judged:
            draft.put(name, replace(board, judged=True))
    if not of_wave:
        return
    # A wave that failed stays where it is, without a time to wait for: what halts the rollout follows.
    draft.soak_until = None
    if event.ok:
        _next_wave(draft)


def _next_wave(draft: Draft) -> None:
    draft.wave += 1
    draft.phase, draft.began_at = "approval", None
    if draft.wave >= len(draft.plan.waves):
        if draft.status is _S.PAUSED:
            draft.resumes_as = _S.CONVERGING
        else:
            draft.status = _S.CONVERGING


def _halted(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    draft.reason = event.reason
    if event.undo:
        _roll_back(draft)
    elif any(is_moving(draft.boards[name]) for name in tuple(draft.boards)):
        # Boards that misbehaved are brought back all the same, and pushes under way are waited for.
        draft.status = _S.ROLLING_BACK
    else:
        draft.status = _S.HALTED


def _rollback_asked(draft: Draft, _event: Any, _at: float) -> None:  # noqa: ANN401
    _roll_back(draft)


def _roll_back(draft: Draft) -> None:
    draft.status, draft.undoes_all = _S.ROLLING_BACK, True
    for name in tuple(draft.boards):
        board = draft.boards[name]
        if board.phase is _P.STUCK and board.before is not None:
            # A person asks for what could not be done before.
            board = replace(board, phase=_P.SERVING)
        after = brought_back(board)
        if after is not draft.boards[name]:
            draft.put(name, after)


def _approved(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    if 0 <= event.wave < len(draft.plan.waves):
        draft.approved |= {event.wave}


def _paused(draft: Draft, _event: Any, _at: float) -> None:  # noqa: ANN401
    draft.resumes_as, draft.status = draft.status, _S.PAUSED


def _resumed_from_pause(draft: Draft, event: Any, at: float) -> None:  # noqa: ANN401
    draft.status = draft.resumes_as
    _resumed(draft, event, at)


def _resumed(draft: Draft, _event: Any, at: float) -> None:  # noqa: ANN401
    draft.resumed_at = at
    if draft.phase == "soaking" and draft.soak_until is not None:
        # Telemetry that nobody listened to is lost; without it the wave would be judged by nothing.
        draft.soak_until = max(draft.soak_until, at + draft.plan.policy.soak_s)
    for name in tuple(draft.boards):
        board = draft.boards[name]
        if board.phase is _P.PUSHING:
            # Perhaps it got through and nobody heard of it.
            after = replace(board, phase=_P.QUEUED, begun=True, again_at=0.0, undo=draft.undoes_all)
        elif board.phase is _P.UNDOING:
            wanted = draft.status is not _S.ABORTED
            after = replace(board, phase=waits_for_undo(board), undo=wanted, again_at=0.0)
        elif board.again_at and is_open(board):
            # Whoever resumes wants to know now who is back, from cron say.
            after = replace(board, again_at=0.0)
        else:
            continue
        draft.put(name, after)


def _aborted(draft: Draft, _event: Any, _at: float) -> None:  # noqa: ANN401
    draft.status, draft.undoes_all = _S.ABORTED, False
    for name in tuple(draft.boards):
        board = draft.boards[name]
        if board.undo and board.phase is not _P.UNDOING:
            draft.put(name, replace(board, undo=False))


def _retried(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    _retry(draft, event.boards)


def _retried_after_end(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    pushed, undone = _retry(draft, event.boards)
    if pushed:
        draft.undoes_all, draft.reason, draft.soak_until = False, "", None
        over = draft.wave >= len(draft.plan.waves)
        draft.status = _S.CONVERGING if over else _S.RUNNING
        if not over and draft.phase == "soaking":
            draft.phase = "pushing"
    elif undone:
        draft.status = _S.ROLLING_BACK


def _retry(draft: Draft, boards: Iterable[str]) -> tuple[int, int]:
    """Return how many boards are to be pushed to again, and how many to be undone again."""
    pushed = undone = 0
    for name in boards:
        board = draft.boards.get(name)
        if board is None or board.wave is None:
            continue
        if board.phase is _P.STUCK and board.before is not None:
            undone += 1
            again = replace(board, phase=_P.SERVING, undo=True, round=board.round + 1, undo_attempts=0, misses=0)
        elif board.phase in (_P.FAILED, _P.UNDONE, _P.STUCK):
            pushed += 1
            began = board.wave < draft.wave or (board.wave == draft.wave and draft.phase != "approval")
            again = BoardProgress(
                phase=_P.QUEUED if began else _P.WAITING,
                wave=board.wave,
                round=board.round + 1,
                surveyed=board.surveyed,
                planned_before=board.planned_before,
                same_model=board.same_model,
                bytes_sent=board.bytes_sent,
            )
        elif board.phase is _P.QUEUED or board.undo:
            again = replace(board, again_at=0.0)
        else:
            continue
        draft.put(name, again)
    return pushed, undone


def _superseded(draft: Draft, event: Any, _at: float) -> None:  # noqa: ANN401
    for name in event.boards:
        board = draft.boards.get(name)
        if board is not None and board.wave is not None and board.phase in (_P.WAITING, _P.QUEUED) and not board.undo:
            draft.put(name, replace(board, phase=_P.SUPERSEDED, detail=f"taken by {event.by_rollout}", again_at=0.0))


def _finished(draft: Draft, _event: Any, _at: float) -> None:  # noqa: ANN401
    draft.status = _S.SUCCEEDED


def _finished_back(draft: Draft, _event: Any, _at: float) -> None:  # noqa: ANN401
    draft.status = _S.ROLLED_BACK if draft.undoes_all else _S.HALTED


_ROLLOUTS: Mapping[tuple[Status, type[Event]], Callable[[Draft, Any, float], None]] = {
    (_S.RUNNING, WaveBegan): _wave_began,
    (_S.RUNNING, SoakBegan): _soak_began,
    (_S.RUNNING, Judged): _judged,
    (_S.RUNNING, Halted): _halted,
    (_S.RUNNING, Approved): _approved,
    (_S.RUNNING, Paused): _paused,
    (_S.RUNNING, Resumed): _resumed,
    (_S.RUNNING, Aborted): _aborted,
    (_S.RUNNING, RollbackAsked): _rollback_asked,
    (_S.RUNNING, Retried): _retried,
    (_S.RUNNING, Superseded): _superseded,
    # Finished in RUNNING: there was no wave, or a newer rollout took all that was left.
    (_S.RUNNING, Finished): _finished,
    # No WaveBegan, SoakBegan in PAUSED: nothing begins; they come again. Judged and Halted: decided just before.
    (_S.PAUSED, Judged): _judged,
    (_S.PAUSED, Halted): _halted,
    (_S.PAUSED, Approved): _approved,
    (_S.PAUSED, Resumed): _resumed_from_pause,
    (_S.PAUSED, Aborted): _aborted,
    (_S.PAUSED, RollbackAsked): _rollback_asked,
    (_S.PAUSED, Retried): _retried,
    (_S.PAUSED, Superseded): _superseded,
    # No WaveBegan, SoakBegan, Approved in CONVERGING: every wave is over.
    (_S.CONVERGING, Judged): _judged,
    (_S.CONVERGING, Halted): _halted,
    (_S.CONVERGING, Paused): _paused,
    (_S.CONVERGING, Resumed): _resumed,
    (_S.CONVERGING, Aborted): _aborted,
    (_S.CONVERGING, RollbackAsked): _rollback_asked,
    (_S.CONVERGING, Retried): _retried,
    (_S.CONVERGING, Superseded): _superseded,
    (_S.CONVERGING, Finished): _finished,
    # No Paused in ROLLING_BACK: boards are brought back to what is known to be good; Aborted stops even that.
    # No Retried: first everything is back.
    (_S.ROLLING_BACK, Resumed): _resumed,
    (_S.ROLLING_BACK, Aborted): _aborted,
    (_S.ROLLING_BACK, RollbackAsked): _rollback_asked,
    (_S.ROLLING_BACK, Superseded): _superseded,
    (_S.ROLLING_BACK, Finished): _finished_back,
    (_S.HALTED, Resumed): _resumed,
    (_S.HALTED, Aborted): _aborted,
    (_S.HALTED, RollbackAsked): _rollback_asked,
    (_S.HALTED, Retried): _retried_after_end,
    (_S.HALTED, Superseded): _superseded,
    (_S.ROLLED_BACK, Resumed): _resumed,
    (_S.ROLLED_BACK, RollbackAsked): _rollback_asked,
    (_S.ROLLED_BACK, Retried): _retried_after_end,
    (_S.ROLLED_BACK, Superseded): _superseded,
    (_S.SUCCEEDED, RollbackAsked): _rollback_asked,
    (_S.SUCCEEDED, Retried): _retried_after_end,
    # No Retried in ABORTED: a person ended it; the next one is a plan of its own.
    (_S.ABORTED, Resumed): _resumed,
    (_S.ABORTED, RollbackAsked): _rollback_asked,
    (_S.ABORTED, Superseded): _superseded,
}
