"""`tflotilla deploy`: a bundle goes to boards, is proven there, and serves."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import selecting  # noqa: TC001 - typer reads it

if TYPE_CHECKING:
    from tflotilla.host.fleet.push import Outcome
    from tflotilla.shared.contract.board import BoardFacts


def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .tflb file or a bundle's folder.")],
    selector: selecting.Selector,
    limit: selecting.Limit = None,
    forks: Annotated[int, typer.Option("--forks", min=1, help="How many boards at once.")] = 10,
    tuned: Annotated[
        bool, typer.Option("--tuned/--no-tuned", help="Run it as `tune` found it fastest, where that was done.")
    ] = True,
    limit_rate: Annotated[
        str | None, typer.Option("--limit-rate", help="Bytes per second for all boards together, like 500kB.")
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Deploy a bundle: check, send what is missing, verify, probe, switch, confirm. The old model serves until then.

    A board that can't run it gets no byte of it; one that has it already changes nothing. What `tflotilla tune` found
    for the model on boards of its type is applied, as long as runtime and kernel are those it was found with.

    Example: tflotilla deploy digits-1.0.0.tflb room=kitchen

    Exit codes: 0 it serves on every board, 2 usage, 3 not a bundle, 4 a board can't run it, 5 unreachable, 6 host key
    or login, 7 the board lacks something, 8 signature or digest, 9 it misbehaved in the probe or after the switch,
    11 another deployment runs or the release is not newer; 1 when boards failed in different ways.
    """
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.cli import output, quantities, results
    from tflotilla.host.fleet import push
    from tflotilla.host.fleet import tuned as tuned_records
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.lines.throttle import Throttle
    from tflotilla.shared.contract.manifest import MODEL

    rate = quantities.bytes_per_second("--limit-rate", limit_rate)
    opened = Bundle.open(bundle)
    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    sha256 = opened.manifest.files[MODEL].sha256
    records = tuned_records.load(loaded.state, sha256, tell=output.note) if tuned else ()

    def advise(name: str, facts: BoardFacts) -> tuned_records.Advice:
        if not tuned:
            return tuned_records.Advice(inference=None, insist=True)
        runtime = loaded.agent_config(name, home="/").inference.runtime
        return tuned_records.advise(records, facts, name, runtime=runtime)

    with results.progress(names) as shown:
        found = push.deploy_many(
            names,
            loaded,
            opened,
            forks=forks,
            on_status=lambda name, status: shown.step(
                name, f"{status.state.value}{f': {status.detail}' if status.detail else ''}"
            ),
            on_bytes=shown.bytes,
            advise=advise,
            limit=None if rate is None else Throttle(rate),
        )
    columns = ("bundle", "sent", "took", "result")
    results.finish(opened.manifest.title, columns, found, _cells, as_json=as_json, right=("sent", "took"))


def _cells(outcome: Outcome) -> tuple[str, ...]:
    result = "serves" if outcome.changed else "served already"
    cuts = f", {outcome.cuts} cuts of the line" if outcome.cuts else ""
    tuning = f", {outcome.tuning}" if outcome.tuning else ""
    return outcome.title, f"{outcome.bytes_sent / 1000:.1f} kB", f"{outcome.duration_s:.1f} s", result + tuning + cuts
