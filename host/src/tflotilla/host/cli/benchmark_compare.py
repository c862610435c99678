"""`tflotilla benchmark compare BASE NEW`: the regression gate for a CI job."""

from __future__ import annotations

import re
import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import InputError, RegressionError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.compare import Comparison
    from tflotilla.host.benchmarks.figures import Metric


def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A result file, or the name or id of a saved benchmark.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What is held against it.")],
    tolerance: Annotated[str, typer.Option(help="A difference within it is none, like 5% or 0.05.")] = "5%",
    alpha: Annotated[float, typer.Option(help="How often chance alone may pass for a difference.")] = 0.01,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="p50|p90|p99|mean|qps|rss", help="Repeated. Default p50; for Offline and Server qps."),
    ] = None,
    across_models: Annotated[bool, typer.Option("--across-models", help="Pair cells of different models.")] = False,
    across_boards: Annotated[
        bool, typer.Option("--across-boards", help="Pair cells of different boards and machines.")
    ] = False,
    include_invalid: Annotated[
        bool, typer.Option("--include-invalid", help="Compare cells that are INVALID, too.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail for what can't be compared, too.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table on stdout.")] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML: a test case for each cell.")
    ] = None,
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Hold a benchmark against an older one: what got slower, by how much, and how sure that is.

    Cells are paired by board, model and configuration. A regression is a difference that chance does not explain
    (Mann-Whitney's test) and whose whole bootstrap interval lies beyond the tolerance. What can't be compared (INVALID,
    another model, machine or method) is listed with the reason.

    Example: tflotilla benchmark compare main new.json --tolerance 5% --metric p50 --metric p99 --junit compare.xml

    Exit codes: 0 nothing is worse, 2 usage, 3 no such result or nothing in it can be compared, 13 a cell is slower or
    does not work any more (with --strict, or can't be compared).
    """
    from tflotilla.host.benchmarks import compare as comparing
    from tflotilla.host.benchmarks.figures import Limits
    from tflotilla.host.benchmarks.rendering import comparison
    from tflotilla.host.cli.saved_benchmarks import load
    from tflotilla.host.models import delivery

    if as_json and markdown:
        raise UsageError("--json and --markdown contradict each other; give one")
    limits = Limits(
        metrics=_metrics(metric or []),
        tolerance=parse_share(tolerance),
        alpha=alpha,
        across_models=across_models,
        across_boards=across_boards,
        include_invalid=include_invalid,
    )
    if junit is not None:
        delivery.check_writable(junit)
    before, after = load(base, fleet), load(new, fleet)
    with output.progress("comparing") as tell:
        found = comparing.compare(before, after, limits, tell=tell)
    problem = _problem(found, strict=strict)
    if junit is not None:
        delivery.deliver(comparison.to_junit(found), junit)
    if as_json:
        output.emit_json(comparison.document(found, exit_code=0 if problem is None else problem.exit_code))
    elif markdown:
        sys.stdout.write(comparison.to_markdown(found))
    else:
        _emit(found)
    if problem is not None:
        raise problem


def parse_share(text: str) -> float:
    """Read `5%`, `5 %` or `0.05`. Raises UsageError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)\s*", text)
    if found is None:
        raise UsageError(f"--tolerance must be a share like 5% or 0.05, not {text!r}")
    share = float(found[1]) / (100 if found[2] else 1)
    if share >= 1 and not found[2]:
        # Whoever means 5 % and gets 500 % has a gate that stops nothing.
        raise UsageError(f"--tolerance {text} would be {share:.0%}; write {found[1]}% or a share below 1")
    return share


def _metrics(names: list[str]) -> tuple[Metric, ...]:
    from tflotilla.host.benchmarks.compare import METRICS

    wanted = [part.strip() for name in names for part in name.split(",")]
    for name in wanted:
        if name not in METRICS:
            raise UsageError(f"--metric must be some of {', '.join(METRICS)}, not {name!r}")
    return cast("tuple[Metric, ...]", tuple(dict.fromkeys(wanted)))


def _emit(found: Comparison) -> None:
    from tflotilla.host.benchmarks.rendering import comparison

    shown = comparison.table(found)
    if shown.rows:
        output.emit_table(shown.title, shown.columns, shown.rows, right=shown.right)
    for line in shown.notes:
        output.note(line)
    output.note(comparison.heading(found))


def _problem(found: Comparison, *, strict: bool) -> RegressionError | InputError | None:
    from tflotilla.host.benchmarks.rendering import comparison, words

    if found.worse:
        return RegressionError(comparison.complaint(found))
    if not found.compared:
        first = next(iter(comparison.notes(found)), "neither has a cell")
        return InputError(f"nothing in {found.new} can be held against {found.base}: {words.sentence(first)}")
    left = len(found.pairs) - len(found.compared)
    if strict and left:
        return RegressionError(f"{left} of {len(found.pairs)} cells could not be compared, and --strict wants all")
    return None
