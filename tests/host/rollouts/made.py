"""Plans and events for tests of the journal."""

from __future__ import annotations

from tflotilla.host.rollouts.events import Claimed, Deployed, Event
from tflotilla.host.rollouts.evidence import Evidence, Total
from tflotilla.host.rollouts.jobs import Job
from tflotilla.host.rollouts.plan import Plan, PlannedBoard, Wave
from tflotilla.host.rollouts.policy import Policy

BUNDLE = "ab" * 32


def plan(name: str = "digits-2.0.0-7f3a", *, boards: int = 3) -> Plan:
    """Return a plan with one canary and the rest."""
    names = [f"pi-{number}" for number in range(boards)]
    return Plan(
        rollout=name,
        fleet="greenhouse",
        bundle=BUNDLE,
        title="digits-2.0.0",
        release=2,
        bundle_file=f".tflotilla/bundles/{BUNDLE}.tflb",
        selector="all",
        created=1000.0,
        by="anna@desk",
        boards=tuple(
            PlannedBoard(board=board, disposition="ready", serving="cd" * 32, send_bytes=4_000_000) for board in names
        ),
        waves=(Wave(size="1", boards=tuple(names[:1])), Wave(size="100%", boards=tuple(names[1:]))),
        policy=Policy(),
    )


def claimed(board: str = "pi-0", *, attempt: int = 1) -> Event:
    """Return a claim with evidence of what served before."""
    total = Total(count=100, p50_ns=1_000_000, p90_ns=2_000_000, p99_ns=3_000_000)
    baseline = Evidence(
        since=1.5, until=9.25, windows=2, results=200, totals=(total, total), labels={"0": 120, "1": 80}
    )
    return Claimed(board=board, deployment=f"{board}-d", attempt=attempt, baseline=baseline)


def deployed(board: str = "pi-0", *, detail: str = "") -> Event:
    """Return the happy end of a push."""
    return Deployed(
        board=board, changed=True, bytes_sent=12_345, duration_s=1.5, before="cd" * 32, shadow=None, detail=detail
    )


def job(board: str = "pi-0", **changes: object) -> Job:
    """Return a push of the plan's bundle."""
    values = {
        "kind": "push",
        "rollout": "digits-2.0.0-7f3a",
        "board": board,
        "deployment": f"{board}-d",
        "bundle": BUNDLE,
        "bundle_file": f".tflotilla/bundles/{BUNDLE}.tflb",
        "fleet_file": "/srv/fleet.toml",
    }
    return Job(**(values | changes))  # type: ignore[arg-type]
