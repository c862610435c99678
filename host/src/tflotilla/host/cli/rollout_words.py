"""A rollout in words: a line for what happened, rows for where it stands. Pure."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tflotilla.host.rollouts import events
from tflotilla.host.rollouts.rollout import BoardPhase, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tflotilla.host.rollouts.events import Event, GateResult
    from tflotilla.host.rollouts.journal.port import Recorded
    from tflotilla.host.rollouts.plan import Plan, PlannedBoard
    from tflotilla.host.rollouts.rollout import BoardProgress, Rollout

PLAN_COLUMNS = ("board", "wave", "what", "serves now", "to send", "expected", "why")
PLAN_FIGURES = ("to send", "expected")
BOARD_COLUMNS = ("board", "wave", "state", "tries", "sent", "what is to be known")
_SHOWN_BOARDS = 6

#: What boards wait for that this machine can't help: they are off, busy, or lack something.
_OF_THE_BOARD = ("UnreachableError", "BusyError", "BoardError", "ProbeError")


def amount(size_bytes: int | None) -> str:
    """Return a size as people read it, empty where it isn't known."""
    if size_bytes is None:
        return ""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def duration(seconds: float) -> str:
    """Return a time span as people read it."""
    if seconds < 100:  # noqa: PLR2004 - seconds are read up to there
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 - likewise


def plan_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return a row per board, in the order of the waves; boards in none come last."""
    number = {board: place for place, wave in enumerate(plan.waves) for board in wave.boards}
    last = len(plan.waves)
    ordered = sorted(plan.boards, key=lambda planned: number.get(planned.board, last))
    return [_plan_row(planned, number.get(planned.board), plan) for planned in ordered]


def _plan_row(planned: PlannedBoard, wave: int | None, plan: Plan) -> tuple[str, ...]:
    return (
        planned.board,
        "" if wave is None else f"{wave + 1} ({plan.waves[wave].size})",
        planned.disposition,
        planned.serving_title or "",
        amount(planned.send_bytes),
        "" if planned.expected_s is None else f"~{duration(planned.expected_s)}",
        planned.reason,
    )


def plan_lines(plan: Plan) -> list[str]:
    """Say what a plan comes to: its waves, its time, who gets nothing."""
    counted = Counter(planned.disposition for planned in plan.boards)
    lines = [f"{plan.title}: " + ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))]
    expected = {planned.board: planned.expected_s or 0.0 for planned in plan.boards}
    sent = {planned.board: planned.send_bytes or 0 for planned in plan.boards}
    for number, wave in enumerate(plan.waves):
        boards = f"{len(wave.boards)} board{'' if len(wave.boards) == 1 else 's'}"
        slowest = max((expected[board] for board in wave.boards), default=0.0) + plan.policy.soak_s
        waits = ", waits for `tflotilla rollout approve`" if wave.approval else ""
        lines.append(
            f"wave {number + 1} ({wave.size}): {boards}, {amount(sum(sent[board] for board in wave.boards))}, "
            f"at least {duration(slowest)} with {duration(plan.policy.soak_s)} of soaking{waits}"
        )
    return lines


def event_line(event: Event, plan: Plan) -> str | None:
    """Say what happened, in one line; None for what nobody needs to read."""
    say = _LINES.get(type(event))
    return None if say is None else say(event, plan)


def event_lines(recorded: Iterable[Recorded], plan: Plan) -> Iterator[str]:
    """Say what happened, a line for each event that people need to read."""
    for each in recorded:
        line = event_line(each.event, plan)
        if line is not None:
            yield line


def _wave_began(event: events.WaveBegan, plan: Plan) -> str:
    planned = plan.waves[event.wave]
    return f"wave {event.wave + 1} of {len(plan.waves)} ({planned.size}) begins: {names(planned.boards)}"


def _deployed(event: events.Deployed, _plan: Plan) -> str:
    what = "serves it" if event.changed else "served it already"
    return f"{event.board}: {what}, {amount(event.bytes_sent)} in {duration(event.duration_s)}"


def _soak_began(event: events.SoakBegan, _plan: Plan) -> str:
    return f"wave {event.wave + 1}: soaking until {time.strftime('%H:%M:%S', time.localtime(event.until))}"


def _judged(event: events.Judged, _plan: Plan) -> str:
    # The reason of a wave's verdict begins with the wave.
    who = f"{names(event.boards)}: " if event.wave is None else ""
    return f"{'passed' if event.ok else 'FAILED'}: {who}{event.reason}"


def _undone(event: events.Undone, _plan: Plan) -> str:
    return f"{event.board}: back on what it served before{f' ({event.detail})' if event.detail else ''}"


#: Claims are not here: what comes of them is what people want to read.
_LINES: Mapping[type[Any], Callable[[Any, Plan], str]] = {
    events.WaveBegan: _wave_began,
    events.Deployed: _deployed,
    events.Missed: lambda event, _plan: f"{event.board}: queued ({event.detail or event.error})",
    events.Born: lambda event, _plan: f"{event.board}: is back",
    events.Failed: lambda event, _plan: f"{event.board}: failed, {event.error}: {event.detail}",
    events.SoakBegan: _soak_began,
    events.Judged: _judged,
    events.Halted: lambda event, _plan: f"HALTED: {event.reason}{'; every board goes back' if event.undo else ''}",
    events.Undone: _undone,
    events.UndoMissed: lambda event, _plan: f"{event.board}: can't be brought back yet ({event.detail or event.error})",
    events.UndoFailed: lambda event, _plan: f"{event.board}: CAN'T be brought back, {event.error}: {event.detail}",
    events.Approved: lambda event, _plan: f"wave {event.wave + 1} is approved",
    events.Superseded: lambda event, _plan: f"{names(event.boards)}: taken over by {event.by_rollout}",
    events.Retried: lambda event, _plan: f"tried again: {names(event.boards)}",
    events.Paused: lambda _event, _plan: "paused",
    events.Resumed: lambda _event, _plan: "goes on",
    events.Aborted: lambda _event, _plan: "aborted: boards that have the bundle keep it",
    events.RollbackAsked: lambda _event, _plan: "rolling back every board",
    events.Finished: lambda _event, _plan: "done",
}


def names(boards: Sequence[str]) -> str:
    """Return boards as a list that stays short."""
    shown = ", ".join(boards[:_SHOWN_BOARDS])
    return shown if len(boards) <= _SHOWN_BOARDS else f"{shown} and {len(boards) - _SHOWN_BOARDS} more"


def headline(rollout: Rollout, *, now: float) -> str:
    """Say where a rollout stands, in one line."""
    plan = rollout.plan
    where = ""
    if rollout.status is Status.RUNNING and rollout.wave < len(plan.waves):
        doing = {
            "approval": f"waits for `tflotilla rollout approve {plan.rollout}`",
            "pushing": "pushing",
            "soaking": f"soaking, {duration(max(0.0, (rollout.soak_until or now) - now))} left",
        }[rollout.phase]
        where = f", wave {rollout.wave + 1} of {len(plan.waves)}: {doing}"
    reason = f": {rollout.reason}" if rollout.reason else ""
    return f"{plan.rollout}  {rollout.status.value}{where}{reason}"


def why_stopped(rollout: Rollout, *, found: Status) -> str | None:
    """Return how "it was stopped" goes on, None where it wasn't since it was `found` in that state."""
    back = (Status.ROLLING_BACK, Status.ROLLED_BACK)
    if rollout.status in (Status.HALTED, *back) and rollout.reason:
        return f": {rollout.reason}"
    ends = (*back, Status.ABORTED)
    if rollout.status in ends and found not in ends:
        return f" by somebody's word: it is {rollout.status.value}"
    return None


def wave_rows(rollout: Rollout) -> list[tuple[str, ...]]:
    """Return a row per wave: its boards by state, and its verdict."""
    verdicts = {verdict.wave: verdict for verdict in rollout.verdicts}
    rows: list[tuple[str, ...]] = []
    for number, wave in enumerate(rollout.plan.waves):
        counted = Counter(rollout.boards[board].phase.value for board in wave.boards)
        verdict = verdicts.get(number)
        said = "" if verdict is None else f"{'passed' if verdict.ok else 'FAILED'}: {verdict.reason}"
        states = ", ".join(f"{count} {phase.value}" for phase in BoardPhase if (count := counted[phase.value]))
        rows.append((f"{number + 1} ({wave.size})", str(len(wave.boards)), states, said))
    return rows


def board_rows(rollout: Rollout) -> list[tuple[str, ...]]:
    """Return a row per board that is in a wave, those that need somebody's eye first."""
    order = [
        BoardPhase.STUCK,
        BoardPhase.FAILED,
        BoardPhase.UNDOING,
        BoardPhase.PUSHING,
        BoardPhase.QUEUED,
        BoardPhase.UNDONE,
        BoardPhase.SERVING,
        BoardPhase.SUPERSEDED,
        BoardPhase.WAITING,
    ]
    inside = [(name, progress) for name, progress in rollout.boards.items() if progress.wave is not None]
    inside.sort(key=lambda item: (order.index(item[1].phase), item[1].wave or 0, item[0]))
    return [_board_row(name, progress) for name, progress in inside]


def _board_row(name: str, progress: BoardProgress) -> tuple[str, ...]:
    said = ": ".join(filter(None, (progress.error, progress.detail)))
    if progress.misbehaved:
        said = "; ".join(filter(None, ("broke a gate", said)))
    return (
        name,
        "" if progress.wave is None else str(progress.wave + 1),
        progress.phase.value,
        str(progress.attempts or ""),
        amount(progress.bytes_sent) if progress.bytes_sent else "",
        said,
    )


def is_ours_to_mend(progress: BoardProgress) -> bool:
    """Whether a board waits because this machine could not even ask it: a bundle that is not here, say."""
    waits = progress.phase is BoardPhase.QUEUED or progress.undo
    return waits and progress.error not in (None, *_OF_THE_BOARD)


def gate_rows(results: Sequence[GateResult]) -> list[tuple[str, ...]]:
    """Return a row per result of a verdict, those that failed first."""
    ordered = sorted(results, key=lambda result: (result.ok, result.gate, result.board))
    return [("ok" if result.ok else "FAILED", result.gate, result.board, result.figure) for result in ordered]
