"""Rollouts in each of their states, told by events; and the engine asked until it says nothing more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import (
    Aborted,
    Claimed,
    Deployed,
    Event,
    Failed,
    Finished,
    Halted,
    Judged,
    Missed,
    Paused,
    SoakBegan,
    UndoClaimed,
    Undone,
    WaveBegan,
)
from tflotilla.host.rollouts.evidence import Evidence, Total
from tflotilla.host.rollouts.plan import Plan, PlannedBoard, Wave
from tflotilla.host.rollouts.policy import Policy
from tflotilla.host.rollouts.rollout import Rollout, Status
from tflotilla.shared.contract.deployment import ShadowReport

if TYPE_CHECKING:
    from collections.abc import Mapping

OLD, NEW = "0" * 64, "1" * 64
T0 = 1000.0


def plan(*sizes: int, policy: Policy | None = None, **fields: Any) -> Plan:  # noqa: ANN401 - of Plan
    """Return a plan with waves of so many boards, called a, b, c…"""
    names = [chr(ord("a") + number) for number in range(sum(sizes))]
    rest = iter(names)
    whole: dict[str, Any] = {
        "rollout": "digits-2.0.0-7f3a",
        "fleet": "lab",
        "bundle": NEW,
        "title": "digits-2.0.0",
        "release": 2,
        "bundle_file": "digits.tflb",
        "selector": "all",
        "created": T0,
        "by": "anna@desk",
        "boards": tuple(PlannedBoard(board=name, disposition="ready", serving=OLD) for name in names),
        "waves": tuple(Wave(size=str(size), boards=tuple(next(rest) for _ in range(size))) for size in sizes),
        "policy": policy or Policy(baseline_s=0, soak_s=60),
    }
    return Plan(**(whole | fields))


def tell(rollout: Rollout, *events: Event, at: float = T0) -> Rollout:
    """Fold events that all happened at that time."""
    return engine.fold_all(rollout, ((event, at) for event in events))


def claimed(board: str, attempt: int = 1) -> Claimed:
    return Claimed(board=board, deployment=f"push-{board}", attempt=attempt, baseline=report())


def deployed(board: str, **fields: Any) -> Deployed:  # noqa: ANN401 - of Deployed
    whole: dict[str, Any] = {
        "board": board,
        "changed": True,
        "bytes_sent": 1000,
        "duration_s": 4.0,
        "before": OLD,
        "shadow": ShadowReport(inputs=50, agreed=50),
    }
    return Deployed(**(whole | fields))


def missed(board: str, again_at: float = T0 + 2, **fields: Any) -> Missed:  # noqa: ANN401 - of Missed
    return Missed(board=board, error="UnreachableError", detail="no answer", again_at=again_at, **fields)


def failed(board: str) -> Failed:
    return Failed(board=board, error="ProbeError", detail="7 LSB off")


def verdict(wave: int | None, *boards: str, bad: tuple[str, ...] = ()) -> Judged:
    return Judged(wave=wave, ok=not bad, boards=boards, misbehaved=bad, results=(), reason="said")


def undo(board: str) -> UndoClaimed:
    return UndoClaimed(board=board, deployment=f"undo-{board}", attempt=1)


def report(**fields: Any) -> Evidence:  # noqa: ANN401 - of Evidence
    """Return evidence that keeps every gate; it is as good as that of the bundle before."""
    total = Total(count=700, p50_ns=10_000_000, p90_ns=12_000_000, p99_ns=15_000_000)
    whole: dict[str, Any] = {
        "since": T0,
        "until": T0 + 1e6,
        "windows": 100_000,
        "results": 7000,
        "totals": (total,) * 10,
        "rss_bytes": 50 << 20,
        "temperature_c": 50.0,
        "labels": {"cat": 5000, "dog": 2000},
        "scores": (0, 0, 0, 0, 0, 0, 0, 1000, 2000, 4000),
    }
    return Evidence(**(whole | fields))


def heard(*boards: str, **fields: Any) -> dict[str, Mapping[str, Evidence]]:  # noqa: ANN401 - of Evidence
    """Return good evidence of both bundles on these boards; `fields` change that of the new one."""
    return {board: {OLD: report(since=0.0, until=T0), NEW: report(**fields)} for board in boards}


#: What is heard of every board while the old bundle serves.
BEFORE: Mapping[str, Mapping[str, Evidence]] = {
    chr(code): {OLD: report(since=0.0, until=T0)} for code in range(ord("a"), ord("z"))
}


def settle(
    rollout: Rollout, evidence: Mapping[str, Mapping[str, Evidence]], *, now: float, free: int = 100
) -> tuple[Rollout, list[Event]]:
    """Ask and fold until nothing follows; return all that did."""
    told: list[Event] = []
    while events := engine.next_actions(rollout, evidence, now=now, free=free):
        claims = sum(isinstance(event, (Claimed, UndoClaimed)) for event in events)
        assert claims <= free
        free -= claims
        told += events
        rollout = tell(rollout, *events, at=now)
    return rollout, told


def kinds(events: list[Event] | tuple[Event, ...]) -> list[str]:
    """Return what happened, in words: `Claimed a`."""
    return [f"{type(event).__name__} {getattr(event, 'board', '')}".strip() for event in events]


#: The policy of most stories.
POLICY = Policy(baseline_s=0, soak_s=60, success=0.9, error=0.1)
E = TypeVar("E")


def begin(*sizes: int, **policy: Any) -> Rollout:  # noqa: ANN401 - of Policy
    """Return a rollout of which nothing has happened yet."""
    return engine.begin(plan(*sizes, policy=replace(POLICY, **policy)))


def of_kind(kind: type[E], events: list[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def soaked(*sizes: int, **policy: Any) -> Rollout:  # noqa: ANN401 - of Policy
    """Return a rollout whose first wave serves and soaks until T0 + 60."""
    rollout, _told = settle(begin(*sizes, **policy), BEFORE, now=T0)
    rollout = tell(rollout, *(deployed(name) for name in rollout.plan.waves[0].boards))
    rollout, _told = settle(rollout, BEFORE, now=T0)
    assert rollout.soak_until == T0 + 60
    return rollout


def converging() -> Rollout:
    """Return a rollout all of whose waves passed, without board c."""
    rollout, _told = settle(begin(3), BEFORE, now=T0)
    rollout = tell(rollout, deployed("a"), deployed("b"), missed("c", T0 + 900))
    rollout, _told = settle(rollout, BEFORE, now=T0)
    rollout, _told = settle(rollout, heard(*"ab"), now=T0 + 60)
    assert Status.CONVERGING is rollout.status
    return rollout


_BEGUN = (WaveBegan(wave=0), claimed("a"), deployed("a"))
_SOAKING = (*_BEGUN, SoakBegan(wave=0, until=T0 + 60))
_BAD = (*_SOAKING, verdict(0, "a", bad=("a",)), Halted(reason="bad", undo=True))
_SECOND = (*_SOAKING, verdict(0, "a"), WaveBegan(wave=1), claimed("b"), deployed("b"), claimed("c"), failed("c"))
_LATE = (*_SECOND, claimed("d"), missed("d"), SoakBegan(wave=1, until=T0 + 60), verdict(1, "b"))
#: How each status comes about, on a plan of waves of one and three.
ROADS: Mapping[Status, tuple[Event, ...]] = {
    Status.RUNNING: _SOAKING,
    Status.PAUSED: (*_SOAKING, Paused()),
    Status.CONVERGING: _LATE,
    Status.ROLLING_BACK: _BAD,
    Status.HALTED: (WaveBegan(wave=0), claimed("a"), failed("a"), Halted(reason="bad", undo=False)),
    Status.ROLLED_BACK: (*_BAD, undo("a"), Undone(board="a"), Finished()),
    Status.ABORTED: (*_SOAKING, Aborted()),
    Status.SUCCEEDED: (*_LATE, claimed("d", 2), deployed("d"), verdict(None, "d"), Finished()),
}


def in_status(status: Status) -> Rollout:
    """Return a rollout that is in that status."""
    policy = Policy(baseline_s=0, soak_s=60, success=0.5, error=0.5)
    return tell(engine.begin(plan(1, 3, policy=policy)), *ROADS[status])


def like(rollout: Rollout, **fields: Any) -> Rollout:  # noqa: ANN401 - of Rollout
    """Return the same but for these fields, and for the count of events."""
    return replace(rollout, events=0, **fields)
