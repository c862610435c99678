"""`tflotilla evaluate`: how good and how fast models are, on labelled data or beside the float model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.models.evaluate import EvaluationReport, Score
    from tflotilla.host.models.metrics import Metric

_MS = 1e6
_KIB = 1024
#: Rows of classes or outputs that people get to see; JSON has all.
_MOST_ROWS = 20


def evaluate(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help=".tflite files, .tflb files, bundle folders.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Classes: folder with a subfolder per class, with labels.csv or with MNIST's idx files, .npz with x "
            "and y. Boxes: folder with boxes.csv (file,label,xmin,ymin,xmax,ymax), COCO .json, VOC .xml. Unlabelled, "
            "with --reference: folder of images, .npy, .npz with an array per input."
        ),
    ],
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE. Bundles know theirs."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="accuracy, map (detectors), cosine or sqnr (against --reference). Default: by model and data."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The float .tflite that outputs and best classes are compared with.")
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
    """Measure accuracy, mAP@0.5 or likeness to float, and latency, with the runtimes that boards use.

    Latency is this machine's, of single runs; the other samples are answered in batches by every core.

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
            metric=None if metric is None else _metric(metric),
            reference=reference,
        )
        report = evaluation.evaluate(request, output.spare(say))
    if as_json:
        output.emit_json(_document(report))
    else:
        _show(report)


def _metric(text: str) -> Metric:
    from tflotilla.host.models.metrics import Metric

    try:
        return Metric(text)
    except ValueError:
        raise UsageError(f"--metric {text!r}: expected one of {', '.join(Metric)}") from None


def _show(report: EvaluationReport) -> None:
    scores = report.scores
    cells = [_cells(score) for score in scores]
    # A column that says nothing about any of them is left out.
    columns = [name for name in _COLUMNS if any(each.get(name) for each in cells)]
    if len(scores) == 1 and scores[0].value == scores[0].float_value:
        columns = [name for name in columns if name != "vs float"]
    output.emit_table(
        f"{report.data}: invoke latency on this machine, {scores[0].num_threads} thread(s)",
        columns,
        [[each.get(name, "") for name in columns] for each in cells],
        right=[name for name in columns if name not in ("model", "scheme", "runtime", "worst output")],
    )
    _show_rows(
        ("model", "runtime", "class", "boxes", "AP@0.5"),
        [
            (*_who(score), part.name, f"{part.boxes:,}", f"{part.average_precision:.2%}")
            for score in scores
            for part in score.classes
        ],
    )
    _show_rows(
        ("model", "runtime", "output", "cosine", "SQNR dB"),
        [
            (*_who(score), part.name, f"{part.cosine:.6f}", f"{part.sqnr_db:.1f}")
            for score in scores
            if len(score.outputs) > 1
            for part in score.outputs
        ],
    )
    if not all(score.enough_for_p99 for score in scores):
        output.note("~ too few samples for that percentile at 99 % confidence (130 for p90, 662 for p99)")
    for hint in dict.fromkeys(score.hint for score in scores if score.hint):
        output.note(hint)
    for refusal in report.refusals:
        output.note(f"{refusal.model} does not run on {refusal.runtime}: {refusal.reason}")


_COLUMNS = (
    *("model", "scheme", "runtime", "KiB", "samples", "top-1", "top-5", "mAP@0.5", "cosine", "SQNR dB", "worst output"),
    *("vs float", "agrees", "agrees top-5", "p50 ms", "p90 ms", "p99 ms", "with images, p50 ms"),
)


def _cells(score: Score) -> dict[str, str]:
    from tflotilla.host.models.metrics import Metric

    invoke, total = score.stages["invoke"], score.stages["total"]
    labelled = score.metric.needs_labels
    lost = score.value - score.float_value if labelled and score.float_value is not None else None
    worst = score.outputs[0] if score.outputs else None
    return {
        "model": score.model.name,
        "scheme": score.scheme.value,
        "runtime": score.runtime,
        "KiB": f"{score.size_bytes / _KIB:,.1f}",
        "samples": f"{score.samples:,}",
        "top-1": _percent(score.accuracy),
        "top-5": _percent(score.top5),
        "mAP@0.5": _percent(score.value) if score.metric is Metric.MAP else "",
        "cosine": "" if worst is None else f"{min(each.cosine for each in score.outputs):.6f}",
        "SQNR dB": "" if worst is None else f"{min(each.sqnr_db for each in score.outputs):.1f}",
        "worst output": worst.name if worst is not None and len(score.outputs) > 1 else "",
        "vs float": "" if lost is None else f"{lost * 100:+.2f}",
        "agrees": _percent(score.agreement),
        "agrees top-5": _percent(score.top5_agreement),
        "p50 ms": f"{invoke.p50_ns / _MS:.3f}",
        "p90 ms": ("" if score.enough_for_p90 else "~") + f"{invoke.p90_ns / _MS:.3f}",
        "p99 ms": ("" if score.enough_for_p99 else "~") + f"{invoke.p99_ns / _MS:.3f}",
        "with images, p50 ms": f"{total.p50_ns / _MS:.3f}",
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _who(score: Score) -> tuple[str, str]:
    return score.model.name, score.runtime


def _show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show what scores are made of: a detector's classes, a model's outputs."""
    if rows:
        output.emit_table("in detail", columns, rows[:_MOST_ROWS], right=columns[3:])
    if len(rows) > _MOST_ROWS:
        output.note(f"{len(rows) - _MOST_ROWS} more rows with --json")


def _document(report: EvaluationReport) -> dict[str, Any]:
    return {
        "data": str(report.data),
        "scores": [codec.encode(score) | {"model": str(score.model)} for score in report.scores],
        "refusals": [codec.encode(refusal) | {"model": str(refusal.model)} for refusal in report.refusals],
    }
