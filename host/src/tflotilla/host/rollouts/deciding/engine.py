"""What follows in a rollout: `next_actions(rollout, evidence, now, free) -> events`, and the fold of what happened.

The conductor's loop: events of people and ends of jobs (`heard`) are appended to the journal and folded; then
`next_actions` says what follows, until it says nothing; its events are appended and folded too, and each `Claimed` and
`UndoClaimed` among them is given to the executor. Killed anywhere in between, `rebuild` and a `Resumed` go on: claims
are void, the boards are asked again with the same ids, and tell what became of it.

Rules it keeps:
- a wave is waited for as long as it reached nobody; boards that were missed once don't hold it up;
- a board is judged by itself once it has soaked, and once more with its wave; one that misbehaves is brought back;
- more failures than the plan allows stop everything before anything else is decided;
- undoing goes before pushing, boards that were never tried before those that were missed.
What it does NOT do: any I/O, any waiting, reading a clock, rolling a die (it is handed one).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from tflotilla.host.rollouts import evidence as telemetry
from tflotilla.host.rollouts.deciding import gates, verdicts
from tflotilla.host.rollouts.deciding.agenda import Agenda, listened_since, look
from tflotilla.host.rollouts.deciding.board_transitions import is_bad, is_moving
from tflotilla.host.rollouts.deciding.gates import Seen
from tflotilla.host.rollouts.deciding.transitions import Draft
from tflotilla.host.rollouts.events import (
    Claimed,
    Deployed,
    Failed,
    Finished,
    GateResult,
    Halted,
    Judged,
    Missed,
    SoakBegan,
    UndoClaimed,
    UndoFailed,
    UndoMissed,
    Undone,
    WaveBegan,
)
from tflotilla.host.rollouts.rollout import BoardPhase, BoardProgress, Rollout, Status
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    import random as dice
    from collections.abc import Iterable, Mapping

    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.evidence import Evidence
    from tflotilla.host.rollouts.jobs import JobResult
    from tflotilla.host.rollouts.journal.port import Recorded
    from tflotilla.host.rollouts.plan import Plan, PlannedBoard

    #: By board, then by the bundle's digest.
    Heard = Mapping[str, Mapping[str, Evidence]]

#: The wait before a board that was missed is tried again: doubled each time, and shortened by chance to half at most.
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
#: A board that lacks something, its agent say, may just be starting: it is believed the second time.
_STARTING_WAIT_S = 15.0
#: So often an undo is tried on a board that lacks something.
_UNDO_ATTEMPTS = 5
#: A slow source may need longer for the runs that latency is compared by; at most so many times as long is waited.
BASELINE_PATIENCE = 3
_TRY_AGAIN = frozenset({"UnreachableError", "BusyError"})
_MEDIAN = 50
_SHOWN_DETAIL = 500
_P = BoardPhase


def begin(plan: Plan) -> Rollout:
    """Return a rollout of which nothing has happened yet."""
    waves = {board: number for number, wave in enumerate(plan.waves) for board in wave.boards}
    boards = {
        planned.board: BoardProgress(
            wave=waves.get(planned.board),
            planned_before=planned.serving,
            surveyed=planned.disposition not in ("offline", "unknown"),
            same_model=_same_model(plan, planned),
        )
        for planned in plan.boards
    }
    return Rollout(plan=plan, boards=boards)


def fold(rollout: Rollout, event: Event, *, at: float) -> Rollout:
    """Return the rollout after an event of that time (Unix seconds); one that doesn't fit changes only the count."""
    draft = Draft(rollout)
    draft.apply(event, at)
    return draft.finished()


def fold_all(rollout: Rollout, events: Iterable[tuple[Event, float]]) -> Rollout:
    """Fold many (event, time), copying once."""
    draft = Draft(rollout)
    for event, at in events:
        draft.apply(event, at)
    return draft.finished()


def rebuild(plan: Plan, recorded: Iterable[Recorded]) -> Rollout:
    """Return the rollout that a journal tells."""
    return fold_all(begin(plan), ((each.event, each.at) for each in recorded))


def next_actions(rollout: Rollout, evidence: Heard, *, now: float, free: int) -> tuple[Event, ...]:
    """Return what follows now, nothing when there is nothing to do but wait.

    Append and fold it, then ask again: one decision may allow the next.

    Args:
        rollout: where it is.
        evidence: what was heard; that of the rollout's bundle must be begun anew for a board when it is claimed, for
            what it did in an earlier attempt is no evidence.
        now: Unix seconds.
        free: how many jobs the executor can take besides those that are under way.

    """
    if rollout.status in (Status.PAUSED, Status.ABORTED, Status.SUCCEEDED):
        return ()
    agenda = look(rollout, now)
    if rollout.status in (Status.ROLLING_BACK, Status.ROLLED_BACK, Status.HALTED):
        back = rollout.status is Status.ROLLING_BACK and not agenda.moving
        return (Finished(),) if back else _undo_claims(rollout, agenda, free)
    halted = _too_many(rollout, agenda)
    if halted is not None:
        return (halted,)
    undos = _undo_claims(rollout, agenda, free)
    decided = _decided(rollout, agenda, evidence, now)
    if decided:
        return (*undos, *decided)
    judged = _soaked(rollout, agenda, evidence, now)
    # One that misbehaved may be one too many, so nothing is pushed before it is counted.
    free = 0 if any(verdict.misbehaved for verdict in judged) else free - len(undos)
    return (*undos, *judged, *_claims(rollout, agenda, evidence, now, free))


def wakes_at(rollout: Rollout, *, now: float) -> float | None:
    """Return when `next_actions` may have something new to say without anything happening; None is never.

    While a board's baseline is watched that is a second from now.
    """
    if rollout.status in (Status.PAUSED, Status.ABORTED, Status.SUCCEEDED):
        return None
    agenda = look(rollout, now)
    times = [] if agenda.wakes_at is None else [agenda.wakes_at]
    if rollout.soak_until is not None and rollout.soak_until > now:
        times.append(rollout.soak_until)
    if agenda.fresh or agenda.again:
        times.append(now + 1.0)
    return min(times, default=None)


def heard(rollout: Rollout, result: JobResult, *, now: float, random: dice.Random) -> Event:
    """Return what a job's end means: done, missed (again after a jittered, growing wait) or failed."""
    board = rollout.boards.get(result.job.board, BoardProgress())
    wait_s = min(FIRST_WAIT_S * 2.0 ** min(board.misses, 30), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
    if result.error == "BoardError":
        wait_s = max(wait_s, _STARTING_WAIT_S)
    detail = " ".join(result.detail.split())[:_SHOWN_DETAIL]
    end = _end_of_undo if result.job.kind == "undo" else _end_of_push
    return end(board, result, detail, now + wait_s)


def _end_of_push(board: BoardProgress, result: JobResult, detail: str, again_at: float) -> Event:
    name, error = result.job.board, result.error
    if error is None:
        return Deployed(
            board=name,
            changed=result.changed,
            bytes_sent=result.bytes_sent,
            duration_s=result.duration_s,
            before=result.before,
            shadow=result.shadow,
            detail=detail,
        )
    # What ended before the board was asked for anything, a bundle that is not on this machine say, is no fault of it.
    if error in _TRY_AGAIN or not result.begun or (error == "BoardError" and board.error != "BoardError"):
        return Missed(board=name, error=error, detail=detail, again_at=again_at, begun=result.begun)
    return Failed(board=name, error=error, detail=detail)


def _end_of_undo(board: BoardProgress, result: JobResult, detail: str, again_at: float) -> Event:
    name, error = result.job.board, result.error
    if error is None:
        return Undone(board=name, detail=detail)
    if error in _TRY_AGAIN or not result.begun or (error == "BoardError" and board.undo_attempts < _UNDO_ATTEMPTS):
        return UndoMissed(board=name, error=error, detail=detail, again_at=again_at)
    return UndoFailed(board=name, error=error, detail=detail)


def under_way(rollout: Rollout, claim: Claimed | UndoClaimed) -> bool:
    """Whether a claim that was folded holds; another's event may have come in between, and its job is not wanted."""
    board = rollout.boards[claim.board]
    if isinstance(claim, Claimed):
        return board.phase is _P.PUSHING and board.deployment == claim.deployment
    return board.phase is _P.UNDOING


def at_rest(rollout: Rollout) -> bool:
    """Whether nothing is under way and nothing follows by itself: the conductor may go home."""
    if not rollout.status.over:
        return False
    open_boards = [rollout.boards[name] for name in rollout.open]
    if rollout.status is Status.ABORTED:
        return not any(board.phase in (_P.PUSHING, _P.UNDOING) for board in open_boards)
    return not any(map(is_moving, open_boards))


# What follows


def _undo_claims(rollout: Rollout, agenda: Agenda, free: int) -> tuple[Event, ...]:
    return tuple(
        UndoClaimed(board=name, deployment=_undo_id(rollout, name), attempt=rollout.boards[name].undo_attempts + 1)
        for name in agenda.undo[: max(free, 0)]
    )


def _too_many(rollout: Rollout, agenda: Agenda) -> Halted | None:
    plan = rollout.plan
    for number, bad in sorted(rollout.bad.items()):
        boards = plan.waves[number].boards
        # Never below `bad`: one that failed is neither off nor taken.
        of = len(boards) - rollout.taken.get(number, 0) - agenda.off.get(number, 0)
        if bad / max(of, bad) > plan.policy.error:
            broken = [result for name in boards if is_bad(rollout.boards[name]) for result in _broken(rollout, name)]
            reason = verdicts.too_many(
                number, len(plan.waves), broken=broken, bad=bad, of=max(of, bad), error=plan.policy.error
            )
            return _halt(rollout, reason)
    return None


def _decided(rollout: Rollout, agenda: Agenda, evidence: Heard, now: float) -> tuple[Event, ...]:
    """Return what moves the waves on, nothing where that has to wait."""
    plan, number = rollout.plan, rollout.wave
    left = range(number, len(plan.waves))
    gone = [rollout.taken.get(wave, 0) == len(plan.waves[wave].boards) for wave in left]
    if all(gone):
        # No wave is left, or a newer rollout took all that were.
        return () if rollout.open else (Finished(),)
    if gone[0]:
        reason = f"wave {number + 1} of {len(plan.waves)}: a newer rollout took all its boards, so it proves nothing"
        return (Halted(reason=reason, undo=False),)
    if rollout.phase == "approval":
        waits = plan.waves[number].approval and number not in rollout.approved
        return () if waits else (WaveBegan(wave=number),)
    if rollout.phase == "pushing":
        return () if agenda.awaited else _soak(rollout, now)
    return _soaking(rollout, evidence, now)


def _soaking(rollout: Rollout, evidence: Heard, now: float) -> tuple[Event, ...]:
    if rollout.soak_until is None:
        # Its verdict was taken, and what follows from it not: a host died in between.
        return (_halt(rollout, rollout.verdicts[-1].reason),)
    if now < rollout.soak_until:
        return ()
    verdict = _wave_verdict(rollout, evidence, now)
    return (verdict,) if verdict.ok else (verdict, _halt(rollout, verdict.reason))


def _halt(rollout: Rollout, reason: str) -> Halted:
    return Halted(reason=reason, undo=rollout.plan.policy.on_failure == "rollback")


def _soak(rollout: Rollout, now: float) -> tuple[Event, ...]:
    """Begin to soak, unless the wave reached nobody."""
    reached = False
    until = now
    for name in rollout.plan.waves[rollout.wave].boards:
        board = rollout.boards[name]
        reached = reached or board.since is not None or board.phase is _P.FAILED
        if board.phase is _P.SERVING and not board.undo:
            until = max(until, listened_since(rollout, board) + rollout.plan.policy.soak_s)
    return (SoakBegan(wave=rollout.wave, until=until),) if reached else ()


def _wave_verdict(rollout: Rollout, evidence: Heard, now: float) -> Judged:
    soak_s = rollout.plan.policy.soak_s
    judged: dict[str, tuple[GateResult, ...]] = {}
    failed: dict[str, str] = {}
    misbehaved: dict[str, tuple[GateResult, ...]] = {}
    for name in rollout.plan.waves[rollout.wave].boards:
        board = rollout.boards[name]
        if board.misbehaved:
            misbehaved[name] = _broken(rollout, name)
        elif board.phase is _P.FAILED:
            failed[name] = _said(board)
        elif board.phase is _P.SERVING and not board.undo and listened_since(rollout, board) + soak_s <= now:
            judged[name] = _judge(rollout, name, evidence, now)
        # Others came late, or are still to come: they are judged by themselves.
    return verdicts.of_wave(
        rollout.wave,
        len(rollout.plan.waves),
        judged=judged,
        failed=failed,
        misbehaved=misbehaved,
        success=rollout.plan.policy.success,
    )


def _soaked(rollout: Rollout, agenda: Agenda, evidence: Heard, now: float) -> tuple[Judged, ...]:
    if not agenda.soaked:
        return ()
    return (verdicts.of_boards({name: _judge(rollout, name, evidence, now) for name in agenda.soaked}),)


def _judge(rollout: Rollout, name: str, evidence: Heard, now: float) -> tuple[GateResult, ...]:
    board, plan = rollout.boards[name], rollout.plan
    return gates.judge(
        plan.policy.gates,
        Seen(
            board=name,
            now=now,
            since=listened_since(rollout, board),
            evidence=evidence.get(name, {}).get(plan.bundle),
            before="nothing" if board.before is None else "same" if _of_one_model(board) else "other",
            baseline=board.baseline if board.before is not None else None,
            shadowed=plan.policy.shadow > 0,
            shadow=board.shadow,
            changed=board.changed,
        ),
    )


def _of_one_model(board: BoardProgress) -> bool:
    # What serves may have changed since it was planned; then the model is unknown, and held to be the same.
    return board.same_model or board.before != board.planned_before


def _broken(rollout: Rollout, name: str) -> tuple[GateResult, ...]:
    """Return why a board is bad, from the last verdict that names it."""
    board = rollout.boards[name]
    if board.phase is _P.FAILED:
        return (GateResult(gate="deployment", board=name, ok=False, figure=_said(board)),)
    for verdict in reversed(rollout.verdicts):
        if name in verdict.misbehaved:
            return tuple(result for result in verdict.results if result.board == name and not result.ok)
    return ()


def _said(board: BoardProgress) -> str:
    return f"{board.error}: {board.detail}" if board.detail else str(board.error)


def _claims(rollout: Rollout, agenda: Agenda, evidence: Heard, now: float, free: int) -> tuple[Event, ...]:
    claims: list[Event] = []
    if free <= 0:
        return ()
    agenda.again.sort(key=lambda name: rollout.boards[name].again_at)
    for names in (agenda.fresh, agenda.again):
        for name in names:
            board = rollout.boards[name]
            baseline = board.baseline or _baseline(rollout, name, evidence)
            if now < _due(rollout, board, baseline):
                continue
            claims.append(
                Claimed(
                    board=name,
                    deployment=_push_id(rollout, name),
                    attempt=board.attempts + 1,
                    baseline=telemetry.condensed(baseline) if board.baseline is None and baseline else None,
                )
            )
            if len(claims) == free:
                return tuple(claims)
    return tuple(claims)


def _baseline(rollout: Rollout, name: str, evidence: Heard) -> Evidence | None:
    """Return what was heard last of another bundle on a board: that is what served before."""
    others = [heard for bundle, heard in evidence.get(name, {}).items() if bundle != rollout.plan.bundle]
    return max(others, key=lambda heard: heard.until, default=None)


def _due(rollout: Rollout, board: BoardProgress, baseline: Evidence | None) -> float:
    """Return when a board may be claimed: the bundle before has been watched for long enough by then."""
    wait_s = rollout.plan.policy.baseline_s
    nothing = board.surveyed and board.planned_before in (None, rollout.plan.bundle) and baseline is None
    if wait_s <= 0 or board.baseline is not None or nothing:
        return board.again_at
    # A board that was off, or a host that was, begins to be watched when it is back.
    there = max(rollout.began_at or 0.0, board.again_at, rollout.resumed_at)
    if baseline is None:
        return there + wait_s
    if 0 < baseline.results < minimum_runs(_MEDIAN):
        return max(baseline.since, there) + BASELINE_PATIENCE * wait_s
    return max(board.again_at, baseline.since + wait_s)


def _push_id(rollout: Rollout, name: str) -> str:
    return _id(rollout, name, "push")


def _undo_id(rollout: Rollout, name: str) -> str:
    return _id(rollout, name, "undo")


def _id(rollout: Rollout, name: str, kind: str) -> str:
    key = "\0".join((rollout.plan.rollout, name, rollout.plan.bundle, str(rollout.boards[name].round), kind))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _same_model(plan: Plan, planned: PlannedBoard) -> bool:
    """Whether what serves is a release of the bundle's model; where nobody knows, it counts as one."""
    if plan.model and planned.serving_model is not None:
        return plan.model == planned.serving_model
    if planned.serving_title is None:
        return True
    return _name(plan.title) == _name(planned.serving_title)


def _name(title: str) -> str:
    # A title is name-version, and both may hold hyphens; versions begin with a digit where people number them.
    return re.split(r"-v?(?=[0-9])", title, maxsplit=1)[0]
