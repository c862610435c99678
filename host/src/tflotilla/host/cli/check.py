"""`tflotilla check`: the preflight of a deployment alone; boards get no byte of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.host.models.compatibility import Verdict
from tflotilla.shared.contract.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.errors import TflotillaError
    from tflotilla.shared.contract.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """One board: the verdict, or why there is none."""

    board: str
    verdict: Verdict | None = None
    facts_time: float | None = None
    problem: str | None = None

    @property
    def word(self) -> str:
        """What stands in the table."""
        if self.verdict is None:
            return "unknown"
        return "fits" if self.verdict.ok else "refused"

    @property
    def reason(self) -> str:
        """Why it doesn't fit, in one line; the table and the document have the rest."""
        if self.verdict is None:
            return (self.problem or "").removeprefix(f"{self.board}: ")
        return str(self.verdict)


def check(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .tflb file or a bundle's folder.")],
    selector: Annotated[str, typer.Argument(metavar="SELECTOR", help="all, pi-7, pi-*, room=kitchen, !pi-3.")],
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the boards again first, instead of using what they said last.")
    ] = False,
    fleet: Annotated[
        Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say which boards can run a bundle, and why others can't: ops, memory, disk, labels. Nothing is sent.

    Example: tflotilla check digits-1.0.0.tflb room=kitchen

    Exit codes: 0 every board can run it, 2 usage, 3 not a bundle, 4 a board can't, or nobody knows what it is,
    5-7 with --refresh: a board can't be asked.
    """
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.inventory.fleet import Fleet

    manifest = Bundle.open(bundle).manifest
    loaded = Fleet.load(fleet)
    names = loaded.select(selector)
    failed = _refresh(names, loaded) if refresh else {}
    judged = [_judge(name, loaded, manifest, failed.get(name)) for name in names]
    if as_json:
        output.emit_json({"bundle": manifest.title, "boards": [_facts(each) for each in judged]})
    else:
        rows = [row for each in judged for row in _rows(each)]
        output.emit_table(f"{manifest.title} on {selector}", ("board", "verdict", "runtime", "reason"), rows)
    # A board that can't be asked has its own exit code; one that can't run the bundle is what this command is about.
    codes = [failed[each.board].exit_code if each.board in failed else IncompatibleError.exit_code for each in judged]
    wrong = [code for code, each in zip(codes, judged, strict=True) if each.word != "fits"]
    if wrong:
        first = next(each for each in judged if each.word != "fits")
        one = f"{first.board}: {first.reason}"
        output.complain(one if len(judged) == 1 else f"{len(wrong)} of {len(judged)} boards can't run it; {one}")
        raise typer.Exit(IncompatibleError.exit_code if IncompatibleError.exit_code in wrong else max(wrong))


def _refresh(names: Sequence[str], fleet: Fleet) -> dict[str, TflotillaError]:
    from tflotilla.host.fleet import pool
    from tflotilla.host.fleet.agents import probe

    with output.progress(f"asking {len(names)} boards what they are"):
        results = pool.run(names, lambda name: probe.probe(name, fleet))
    return {result.board: result.error for result in results if result.error is not None}


def _judge(name: str, fleet: Fleet, manifest: Manifest, failure: TflotillaError | None) -> _Judged:
    if failure is not None:
        return _Judged(board=name, problem=str(failure))
    facts = fleet.facts(name)
    if facts is None:
        return _Judged(board=name, problem=f"never asked what it is; `tflotilla board probe {name}` does")
    return _Judged(board=name, verdict=_verdict(name, fleet, manifest, facts), facts_time=facts.time)


def _verdict(name: str, fleet: Fleet, manifest: Manifest, facts: BoardFacts) -> Verdict:
    from tflotilla.host.models import compatibility

    inference = fleet.agent_config(name, home="/").inference
    return compatibility.check_bundle(
        manifest,
        facts,
        labels=fleet.board(name).labels,
        runtime=inference.runtime,
        delegate=inference.delegate is not None,
    )


def _rows(judged: _Judged) -> Iterator[tuple[str, str, str, str]]:
    """One row per reason of the board, and one per runtime; the board's own word stands in its first row."""
    if judged.verdict is None:
        yield (judged.board, judged.word, "", judged.problem or "")
        return
    lines = [("", reason) for reason in judged.verdict.reasons]
    for each in judged.verdict.runtimes:
        assumed = f" (by the ops of {each.assumed}; this version was never measured)" if each.assumed else ""
        lines.append((str(each.runtime), str(each) or f"runs it{assumed}"))
    for i, (runtime, reason) in enumerate(lines):
        yield (judged.board if i == 0 else "", judged.word if i == 0 else "", runtime, reason)


def _facts(judged: _Judged) -> dict[str, Any]:
    document: dict[str, Any] = {"board": judged.board, "verdict": judged.word, "facts_time": judged.facts_time}
    if judged.verdict is None:
        return document | {"reasons": [judged.problem], "runtimes": []}
    runtimes = [
        {"runtime": str(each.runtime), "ok": each.ok, "reasons": each.reasons, "assumed": each.assumed}
        for each in judged.verdict.runtimes
    ]
    return document | {"reasons": judged.verdict.reasons, "runtimes": runtimes}
