"""`tflotilla rollout plan` and `start`: what would happen, and its beginning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import rollout_options as options
from tflotilla.host.cli import selecting

if TYPE_CHECKING:
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.plan import Plan
    from tflotilla.host.rollouts.policy import Policy

_BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .tflb file or a bundle's folder.")]
_Cached = Annotated[bool, typer.Option("--cached", help="Ask no board; plan by what is remembered of them.")]


def plan(
    bundle: _BundleArgument,
    selector: selecting.Selector,
    waves: options.Waves = "1,10%,50%,100%",
    soak: options.Soak = "60s",
    baseline: options.Baseline = "10s",
    success: options.Success = "90%",
    error: options.Error = "10%",
    on_failure: options.OnFailure = "rollback",
    shadow: options.Shadow = 50,
    gate: options.Gate = None,
    limit: selecting.Limit = None,
    forks: options.Forks = None,
    cached: _Cached = False,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Show per board what a rollout would do and why: ready, current, incompatible, offline; bytes, time, wave.

    Boards are asked what they are and serve; nothing on them is changed, nothing is written down.

    Example: tflotilla rollout plan birds-2.0.0.tflb all --waves 1,10%,50%,100%

    Exit codes: 0 planned, 2 usage, 3 not a bundle or fleet.toml, 8 signature or digest.
    """
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.cli import output, rollout_words
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.journal import database

    loaded, opened = Fleet.load(fleet), Bundle.open(bundle)
    policy = options.policy(
        soak=soak,
        baseline=baseline,
        success=success,
        error=error,
        on_failure=on_failure,
        shadow=shadow,
        gates=gate or (),
    )
    journal = database.of_fleet(loaded, tell=output.note)
    try:
        made = _planned(loaded, opened, selector, limit, waves, policy, forks=forks, cached=cached, journal=journal)
    finally:
        journal.close()
    if as_json:
        output.emit_json(made)
        return
    rows = rollout_words.plan_rows(made)
    output.emit_table(made.title, rollout_words.PLAN_COLUMNS, rows, right=rollout_words.PLAN_FIGURES)
    for line in rollout_words.plan_lines(made):
        typer.echo(line)


def start(
    bundle: _BundleArgument,
    selector: selecting.Selector,
    waves: options.Waves = "1,10%,50%,100%",
    soak: options.Soak = "60s",
    baseline: options.Baseline = "10s",
    success: options.Success = "90%",
    error: options.Error = "10%",
    on_failure: options.OnFailure = "rollback",
    shadow: options.Shadow = 50,
    gate: options.Gate = None,
    limit: selecting.Limit = None,
    forks: options.Forks = None,
    limit_rate: options.LimitRate = None,
    cached: _Cached = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Only write it down; `rollout resume` or the controller does it.")
    ] = False,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Bring a bundle to boards wave by wave; what it does there decides whether the next wave begins.

    After each wave has served for --soak, its boards are held against the bundle before them: golden vectors and
    probe, errors, crashes, p99 latency, memory, temperature, label mix, confidence, agreement on the same inputs. More
    failures than --error stop everything, and every board goes back. Boards that are off stay queued.

    Gates for --gate: error_rate, crashes, latency_ratio, latency_ms, memory_ratio, memory_mib, temperature_c,
    labels_psi, confidence_psi, agreement; `off` switches one off, all=off leaves the boards' own confirm window.

    Example: tflotilla rollout start birds-2.0.0.tflb all --waves 1,10%!,100% --soak 10min

    Exit codes: 0 it serves wherever it could be reached, 1 single boards failed, 2 usage, 3 not a bundle or
    fleet.toml, 4 no board can run it, 8 signature or digest, 10 MQTT, 11 another rollout is at work there,
    14 halted, or stopped by somebody.
    """
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.cli import output, quantities, rollout_conduct
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts import starting
    from tflotilla.host.rollouts.journal import database

    loaded, opened = Fleet.load(fleet), Bundle.open(bundle)
    policy = options.policy(
        soak=soak,
        baseline=baseline,
        success=success,
        error=error,
        on_failure=on_failure,
        shadow=shadow,
        gates=gate or (),
    )
    rate = quantities.bytes_per_second("--limit-rate", limit_rate)
    starting.refuse_deaf(loaded, policy)
    journal = database.of_fleet(loaded, tell=output.note)
    try:
        made = _planned(loaded, opened, selector, limit, waves, policy, forks=forks, cached=cached, journal=journal)
        for board in made.boards:
            if board.disposition == "incompatible":
                output.note(f"{board.board} is left out: {board.reason}")
        begun = starting.begin(loaded, opened, made, journal)
    finally:
        journal.close()
    if detach:
        if as_json:
            output.emit_json({"rollout": begun.rollout, "boards": sum(len(wave.boards) for wave in begun.waves)})
        else:
            typer.echo(f"{begun.rollout} is written down; `tflotilla rollout resume {begun.rollout}` does it")
        return
    rollout_conduct.conduct(loaded, begun.rollout, forks=forks, limit_rate=rate, as_json=as_json)


def _planned(
    fleet: Fleet,
    bundle: Bundle,
    selector: str,
    limit: str | None,
    waves: str,
    policy: Policy,
    *,
    forks: int | None,
    cached: bool,
    journal: Journal,
) -> Plan:
    from tflotilla.host.cli import output
    from tflotilla.host.rollouts import starting
    from tflotilla.host.rollouts.deciding import waves as wave_sizes

    sizes = wave_sizes.parse(waves)
    for size in sizes:
        if size.selector is not None:
            # A slip is told before boards are asked, not after.
            fleet.select(size.selector)
    names = fleet.select(selector, limit=limit)
    starting.refuse_blinks(fleet, names, policy)
    asked = 0
    with output.progress(f"asking {len(names)} board{'s' if len(names) > 1 else ''}") as update:
        say = output.spare(update)

        def on_answer(_name: str) -> None:
            nonlocal asked
            asked += 1
            say(f"asking boards: {asked} of {len(names)}")

        return starting.plan(
            fleet,
            bundle,
            selector=selector,
            names=names,
            sizes=sizes,
            policy=policy,
            forks=forks or fleet.rollouts.forks,
            journal=journal,
            asks=not cached,
            on_answer=on_answer,
        )
