"""A rollout as pages show it. Pure. Waves are counted from 1, as people do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tflotilla.host.rollouts.rollout import BoardPhase, Status
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.host.rollouts.events import GateResult, Judged
    from tflotilla.host.rollouts.journal.port import AuditEntry
    from tflotilla.host.rollouts.rollout import BoardProgress, Rollout

_FAILED = frozenset({BoardPhase.FAILED, BoardPhase.STUCK, BoardPhase.UNDONE, BoardPhase.UNDOING})
_PENDING = frozenset({BoardPhase.WAITING, BoardPhase.QUEUED, BoardPhase.PUSHING})
OVER = frozenset(status.value for status in Status if status.over)
_LAST_ENTRIES = 200
_ENDS = {BoardPhase.SERVING: "succeeded", BoardPhase.UNDONE: "rolled_back", BoardPhase.FAILED: "failed"}
#: Those that need somebody's eye first.
_ORDER = ("stuck", "failed", "undoing", "pushing", "queued", "undone", "serving", "superseded", "waiting")


def row(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout in short."""
    plan = rollout.plan
    phases = Counter(each.phase.value for each in rollout.boards.values() if each.wave is not None)
    return {
        "id": plan.rollout,
        "title": plan.title,
        "status": rollout.status.value,
        "wave": rollout.wave + 1 if rollout.wave < len(plan.waves) else None,
        "waves": [_wave(rollout, number) for number in range(len(plan.waves))],
        "counts": dict(phases),
        "started": plan.created,
        "reason": rollout.reason,
    }


def detail(rollout: Rollout, *, conductor: str | None, audit: Iterable[AuditEntry]) -> dict[str, Any]:
    """Return all of it: every board, the gates with their limits and figures, who did what."""
    plan = rollout.plan
    boards = [_board(name, each) for name, each in rollout.boards.items() if each.wave is not None]
    boards.sort(key=lambda each: (_ORDER.index(each["phase"]), each["wave"], each["board"]))
    return row(rollout) | {
        "digest": plan.bundle,
        "release": plan.release,
        "selector": plan.selector,
        "by": plan.by,
        "conductor": conductor,
        "phase": rollout.phase,
        "soak_until": rollout.soak_until,
        "policy": codec.encode(plan.policy),
        "boards": boards,
        "left_out": [
            {"board": each.board, "disposition": each.disposition, "reason": each.reason}
            for each in plan.boards
            if rollout.boards[each.board].wave is None
        ],
        "verdicts": [_verdict(judged) for judged in rollout.verdicts],
        "gates": [_gate(result, judged.wave) for judged in rollout.verdicts for result in judged.results],
        "audit": [
            {"time": entry.at, "by": entry.by, "action": entry.action, "detail": dict(entry.detail)}
            for entry in audit
            if entry.rollout == plan.rollout
        ][-_LAST_ENTRIES:],
    }


def deployments(rollouts: Iterable[Rollout], board: str) -> list[dict[str, Any]]:
    """Return how a board fared in rollouts, in the words of deployments; those that wait or go on are left out."""
    found = []
    for rollout in rollouts:
        progress = rollout.boards.get(board)
        if progress is None or progress.deployment is None or progress.phase not in _ENDS:
            continue
        told = {
            "deployment": progress.deployment,
            "time": progress.since or rollout.plan.created,
            "state": _ENDS[progress.phase],
            "title": rollout.plan.title,
            "detail": progress.detail,
            "error": progress.error,
        }
        found.append(told)
    return found


def _wave(rollout: Rollout, number: int) -> dict[str, Any]:
    wave = rollout.plan.waves[number]
    phases = [rollout.boards[board].phase for board in wave.boards]
    verdict = _last_verdict(rollout, number)
    return {
        "index": number + 1,
        "size": wave.size,
        "boards": len(wave.boards),
        "serving": sum(phase is BoardPhase.SERVING for phase in phases),
        "failed": sum(phase in _FAILED for phase in phases),
        "pending": sum(phase in _PENDING for phase in phases),
        "state": _state(rollout, number, verdict),
        "verdict": None if verdict is None else verdict.reason,
        "approval": wave.approval and number not in rollout.approved,
    }


def _state(rollout: Rollout, number: int, verdict: Judged | None) -> str:
    """Return passed, failed, approval, pushing, soaking or waiting."""
    if verdict is not None:
        return "passed" if verdict.ok else "failed"
    if number < rollout.wave:
        return "passed"
    if number > rollout.wave or rollout.status.over:
        return "waiting"
    waits = rollout.phase == "approval" and not (rollout.plan.waves[number].approval and number not in rollout.approved)
    return "waiting" if waits or rollout.status is Status.ROLLING_BACK else rollout.phase


def _last_verdict(rollout: Rollout, number: int) -> Judged | None:
    return next((judged for judged in reversed(rollout.verdicts) if judged.wave == number), None)


def _verdict(judged: Judged) -> dict[str, Any]:
    return {
        "wave": None if judged.wave is None else judged.wave + 1,
        "ok": judged.ok,
        "reason": judged.reason,
        "boards": list(judged.boards),
        "misbehaved": list(judged.misbehaved),
    }


def _gate(result: GateResult, wave: int | None) -> dict[str, Any]:
    return {
        "wave": None if wave is None else wave + 1,
        "gate": result.gate,
        "board": result.board,
        "ok": result.ok,
        "figure": result.figure,
        "value": result.value,
        "limit": result.limit,
    }


def _board(name: str, progress: BoardProgress) -> dict[str, Any]:
    said = ": ".join(filter(None, (progress.error, progress.detail)))
    if progress.misbehaved:
        said = "; ".join(filter(None, ("broke a gate", said)))
    return {
        "board": name,
        "wave": None if progress.wave is None else progress.wave + 1,
        "phase": progress.phase.value,
        "reason": said or None,
        "attempts": progress.attempts,
        "bytes_sent": progress.bytes_sent,
        "again_at": progress.again_at or None,
    }
