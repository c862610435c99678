"""Makes a plan out of a bundle, a selector and a policy, and begins it: the part before the conductor.

Rules it keeps: nothing on a board is changed by planning; a plan that could reach nobody is not begun.
What it does NOT do: carry it out.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from tflotilla.host.fleet import push
from tflotilla.host.models import compatibility
from tflotilla.host.rollouts import bundle_copies, estimates, survey
from tflotilla.host.rollouts.deciding import engine, planning, waves
from tflotilla.host.rollouts.journal import register
from tflotilla.host.rollouts.plan import Plan
from tflotilla.shared.contract.errors import BusyError, ConfigError, IncompatibleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.models.compatibility import Verdict
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.plan import PlannedBoard
    from tflotilla.host.rollouts.policy import Policy
    from tflotilla.shared.contract.board import BoardFacts


def plan(
    fleet: Fleet,
    bundle: Bundle,
    *,
    selector: str,
    names: Sequence[str],
    sizes: Sequence[waves.WaveSize],
    policy: Policy,
    forks: int,
    journal: Journal | None = None,
    asks: bool = True,
    on_answer: Callable[[str], None] = lambda _name: None,
) -> Plan:
    """Ask the boards and say what would happen to each; with `asks` False, by what is remembered of them.

    Raises:
        VerificationError: the bundle is unsigned, edited, or by a stranger.
        UsageError: the waves leave boards over.

    """
    push.verify(fleet, bundle)
    if asks:
        surveys = survey.ask_many(names, fleet, forks=forks, on_answer=on_answer)
    else:
        known = survey.remembered(names, fleet)
        surveys = tuple(known[name] for name in names)
    seen_s = {} if journal is None else estimates.durations(journal)
    boards = tuple(_judged(each, fleet, bundle, seen_s.get(each.board)) for each in surveys)
    return Plan(
        rollout=f"{bundle.manifest.title}-{os.urandom(2).hex()}",
        fleet=fleet.name,
        bundle=bundle.digest,
        title=bundle.manifest.title,
        model=bundle.manifest.name,
        release=bundle.manifest.release,
        bundle_file="",
        selector=selector,
        created=time.time(),
        by=register.person(),
        boards=boards,
        waves=waves.split(sizes, boards, select=fleet.select),
        policy=policy,
    )


def begin(fleet: Fleet, bundle: Bundle, planned: Plan, journal: Journal) -> Plan:
    """Keep the bundle and the plan; return the plan as the journal has it.

    Raises:
        ConfigError: its gates want telemetry, and the fleet has no broker.
        IncompatibleError: no board can run it.
        BusyError: another rollout is at work on some of the boards.

    """
    from dataclasses import replace

    refuse_deaf(fleet, planned.policy)
    if not planned.waves:
        refused = next((board for board in planned.boards if board.disposition == "incompatible"), None)
        if refused is not None:
            message = f"no board is left for {planned.title}: {refused.board}: {refused.reason}; nothing was begun"
            raise IncompatibleError(message)
    kept = replace(planned, bundle_file=bundle_copies.keep(fleet, bundle))
    detail = {
        "bundle": kept.bundle,
        "selector": kept.selector,
        "waves": [wave.size for wave in kept.waves],
        "boards": sum(len(wave.boards) for wave in kept.waves),
    }
    journal.audit("start", by=kept.by, at=time.time(), rollout=kept.rollout, detail=detail)
    try:
        register.claim(journal, kept, by=kept.by)
    except BusyError as error:
        journal.audit("busy", by=kept.by, at=time.time(), rollout=kept.rollout, detail={"reason": str(error)})
        raise
    return kept


def refuse_deaf(fleet: Fleet, policy: Policy) -> None:
    """Raise ConfigError when the policy's gates can't be read, because nothing reports."""
    if fleet.mqtt is not None or not wants_telemetry(policy):
        return
    message = (
        f"{fleet.path} has no [mqtt], so gates can't see what boards do: name the broker there, or leave it to the "
        "boards' own confirm window with --gate all=off"
    )
    raise ConfigError(message)


def refuse_blinks(fleet: Fleet, names: Iterable[str], policy: Policy) -> None:
    """Raise UsageError when a board reports more rarely than it is watched: its gates could only fail."""
    if not wants_telemetry(policy):
        return
    # 0 is a person's word that what is known by then will do; no baseline is cut short before its patience is over.
    baseline_s = policy.baseline_s * engine.BASELINE_PATIENCE or math.inf
    for name in names:
        window_s = fleet.agent_config(name, home="/").reporting.window_s
        for option, watched_s in (("soak", policy.soak_s), ("baseline", baseline_s)):
            if watched_s < window_s:
                message = (
                    f"--{option} is too short for {name}, which reports every {window_s:g} s (reporting.window_s): "
                    "its gates could only fail; watch it longer, or switch them off with --gate all=off"
                )
                raise UsageError(message)


def wants_telemetry(policy: Policy) -> bool:
    """Whether some gate is judged by what boards report."""
    gates = policy.gates
    return any(
        limit is not None
        for limit in (
            *(gates.error_rate, gates.crashes, gates.latency_ratio, gates.latency_ms, gates.memory_ratio),
            *(gates.memory_mib, gates.temperature_c, gates.labels_psi, gates.confidence_psi),
        )
    )


def _judged(found: survey.Survey, fleet: Fleet, bundle: Bundle, seen_s: float | None) -> PlannedBoard:
    config = fleet.agent_config(found.board, home="/")

    def check(facts: BoardFacts) -> Verdict:
        return compatibility.check_bundle(
            bundle.manifest,
            facts,
            labels=fleet.board(found.board).labels,
            runtime=config.inference.runtime,
            delegate=config.inference.delegate is not None,
        )

    return planning.judge(
        found,
        bundle.manifest,
        bundle.digest,
        check=check,
        send_bytes=lambda serving, previous: estimates.send_bytes(fleet, bundle, (serving, previous)),
        seen_s=seen_s,
    )
