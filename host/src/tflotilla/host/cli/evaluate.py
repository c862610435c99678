"""`tflotilla evaluate`: accuracy and latency of models on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.models.evaluate import EvaluationReport, Score

_MS = 1e6
_KIB = 1024


def evaluate(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help=".tflite files, .tflb files, bundle folders.")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder with a subfolder per class, folder with labels.csv, or .npz with x and y.")
    ],
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE. Bundles know theirs."
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file, one label a line. Bundles bring theirs.")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="ai-edge-litert or tflite-runtime; repeated. Default: each that is installed here."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads per inference.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples, spread evenly.")] = None,
    label_offset: Annotated[
        int, typer.Option(help="Added to labels given as numbers: 1 for models whose class 0 is background.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure accuracy and latency on labelled data, with the runtimes that boards use. Latency is this machine's.

    Example: tflotilla evaluate converted/*.tflite --data held-out/ --preprocess unit

    Exit codes: 0 measured, 2 usage, 3 a model or the data can't be used, 7 no runtime is installed here.
    """
    import tempfile

    from tflotilla.host.bundles import subjects
    from tflotilla.host.models import evaluate as evaluation

    with (
        tempfile.TemporaryDirectory(prefix="tflotilla-evaluate-") as folder,
        output.progress(f"evaluating {len(models)} model{'s' if len(models) > 1 else ''}") as say,
    ):
        request = evaluation.EvaluationRequest(
            models=tuple(
                subjects.unpack(path, Path(folder) / str(number)) if subjects.is_bundle(path) else path
                for number, path in enumerate(models)
            ),
            data=data,
            preprocess=preprocess,
            labels=labels,
            runtimes=tuple(runtime or ()),
            num_threads=threads,
            limit=limit,
            label_offset=label_offset,
        )
        report = evaluation.evaluate(request, _spare(say))
    if as_json:
        output.emit_json(_document(report))
    else:
        _show(report)


def _spare(say: Callable[[str], None]) -> Callable[[str], None]:
    """Leave out the counting where every change is a line of its own."""
    if output.notes().is_terminal:
        return say
    told: set[str] = set()

    def once(text: str) -> None:
        subject = text.rsplit(":", 1)[0]
        if subject not in told:
            told.add(subject)
            say(subject)

    return once


def _show(report: EvaluationReport) -> None:
    several = any(score.float_accuracy is not None for score in report.scores) and len(report.scores) > 1
    columns = ["model", "scheme", "runtime", "KiB", "samples", "top-1"]
    figures = ["top-5", "vs float", "p50 ms", "p90 ms", "p99 ms", "with images, p50 ms"]
    wanted = [
        name
        for name in figures
        if (name != "vs float" or several)
        and (name != "top-5" or any(score.top5 is not None for score in report.scores))
    ]
    output.emit_table(
        f"{report.data}: invoke latency on this machine, {report.scores[0].num_threads} thread(s)",
        (*columns, *wanted),
        [_row(score, wanted) for score in report.scores],
        right=("KiB", "samples", "top-1", *wanted),
    )
    if not all(score.enough_for_p99 for score in report.scores):
        output.note("~ too few samples for that percentile at 99 % confidence (130 for p90, 662 for p99)")
    for refusal in report.refusals:
        output.note(f"{refusal.model} does not run on {refusal.runtime}: {refusal.reason}")


def _row(score: Score, wanted: list[str]) -> tuple[str, ...]:
    invoke, total = score.stages["invoke"], score.stages["total"]
    lost = None if score.float_value is None else score.value - score.float_value
    figures = {
        "top-5": "" if score.top5 is None else f"{score.top5:.2%}",
        "vs float": "" if lost is None else f"{lost * 100:+.2f}",
        "p50 ms": f"{invoke.p50_ns / _MS:.3f}",
        "p90 ms": ("" if score.enough_for_p90 else "~") + f"{invoke.p90_ns / _MS:.3f}",
        "p99 ms": ("" if score.enough_for_p99 else "~") + f"{invoke.p99_ns / _MS:.3f}",
        "with images, p50 ms": f"{total.p50_ns / _MS:.3f}",
    }
    return (
        score.model.name,
        score.scheme.value,
        score.runtime,
        f"{score.size_bytes / _KIB:,.1f}",
        f"{score.samples:,}",
        f"{score.value:.2%}",
        *(figures[name] for name in wanted),
    )


def _document(report: EvaluationReport) -> dict[str, Any]:
    return {
        "data": str(report.data),
        "scores": [codec.encode(score) | {"model": str(score.model)} for score in report.scores],
        "refusals": [codec.encode(refusal) | {"model": str(refusal.model)} for refusal in report.refusals],
    }
