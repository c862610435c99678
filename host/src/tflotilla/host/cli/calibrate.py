"""`tflotilla calibrate`: what calibration data do to a model, and whether they can be what it was trained on."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from tflotilla.host.models.calibration.evidence import Fit
    from tflotilla.host.models.calibration.report import CalibrationReport

_SHOWN = 12
_NAME_LENGTH = 44


def calibrate(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="What `convert` takes: .keras, .h5, SavedModel, .pb, float .tflite, …"),
    ],
    calibration: Annotated[
        Path, typer.Option(help="Representative data: image folder (classes or not), .npy, .npz, labelled .npz.")
    ],
    preprocess: Annotated[
        str | None,
        typer.Option(help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE: unit,resize=crop."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled data, as `evaluate` takes them: accuracy by number of samples.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file, one label a line.")] = None,
    label_offset: Annotated[
        int, typer.Option(help="Added to labels given as numbers: 1 for models whose class 0 is background.")
    ] = 0,
    samples: Annotated[int, typer.Option(min=1, help="How many calibration samples to use at most.")] = 100,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many labelled samples.")] = None,
    runtime: Annotated[
        str | None, typer.Option(help="ai-edge-litert or tflite-runtime; default: the first that is installed.")
    ] = None,
    input_arrays: Annotated[
        str | None, typer.Option(help="Frozen graph: names of the input nodes, separated by commas.")
    ] = None,
    output_arrays: Annotated[
        str | None, typer.Option(help="Frozen graph: names of the output nodes, separated by commas.")
    ] = None,
    input_shapes: Annotated[
        list[str] | None,
        typer.Option(help="1,224,224,3, or NAME=1,224,224,3 where there are several; repeated, or separated by ';'."),
    ] = None,
    signature: Annotated[str | None, typer.Option(help="SavedModel: which signature.")] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run Python that the model file carries (Lambda layers).")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="FILE.svg or .png: the curve by number of samples; FILE-ranges beside it: the ranges."),
    ] = None,
    all_tensors: Annotated[bool, typer.Option("--all", help="List every tensor, not only the worst.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Report what calibration data do to a model, before they are trusted.

    Ranges per tensor, tensors that saturate on samples they were not calibrated with, accuracy by number of samples;
    and warnings where the images can't be what the model was trained on (range, order of colours).

    Example: tflotilla calibrate digits.keras --calibration photos/ --preprocess unit --data held-out/

    Exit codes: 0 reported (warnings are no errors), 2 usage, 3 model or data can't be used, 7 no runtime is installed
    here, 12 the model can't be converted.
    """
    from tflotilla.host.models import delivery
    from tflotilla.host.models.calibration import measurement
    from tflotilla.host.models.sources import SourceOptions
    from tflotilla.host.models.sources.shapes import parse_input_shapes

    if plot is not None:
        from tflotilla.host.models.plots import check_suffix

        check_suffix(plot)
        delivery.check_writable(plot)
    request = measurement.CalibrationRequest(
        source=source,
        calibration=calibration,
        preprocess=preprocess,
        samples=samples,
        data=data,
        labels=labels,
        label_offset=label_offset,
        limit=limit,
        runtime=runtime,
        options=SourceOptions(
            input_arrays=_names(input_arrays),
            output_arrays=_names(output_arrays),
            input_shapes=parse_input_shapes(input_shapes or ()),
            signature=signature,
            allow_code=allow_code,
        ),
    )
    with output.progress(f"calibrating {source.name}") as say:
        report = measurement.calibrate(request, say)
    if plot is not None:
        from tflotilla.host.models.calibration import picture

        picture.save(report, plot)
    if as_json:
        output.emit_json(document(report))
    else:
        _show(report, all_tensors=all_tensors)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _show(report: CalibrationReport, *, all_tensors: bool) -> None:
    shown = None if all_tensors else _SHOWN
    output.emit_table(
        f"{report.source.name}: ranges of activations on {report.samples} samples",
        ("tensor", "made by", "min", "max", "0.1 %", "99.9 %", "bulk", "zeros", "dead", ""),
        [
            (
                _short(entry.tensor),
                entry.op,
                f"{entry.minimum:.4g}",
                f"{entry.maximum:.4g}",
                f"{entry.low:.4g}",
                f"{entry.high:.4g}",
                f"{entry.bulk_share:.0%}",
                f"{entry.zero_share:.0%}",
                f"{entry.dead_channels}/{entry.channels}" if entry.dead_channels else "",
                "constant" if entry.constant else "outliers" if entry.ruled_by_outliers else "",
            )
            for entry in report.ranges[:shown]
        ],
        right=("min", "max", "0.1 %", "99.9 %", "bulk", "zeros", "dead"),
    )
    _more(len(report.ranges), shown, "tensors")
    clipped = report.saturation if all_tensors else [e for e in report.saturation if e.clipped_share > 0][:_SHOWN]
    if clipped:
        output.emit_table(
            f"calibrated with {report.calibrated_with} samples, run on the other {report.held_out}",
            ("tensor", "made by", "range", "reaches", "clipped", ""),
            [
                (
                    _short(entry.tensor),
                    entry.op,
                    f"{entry.lowest:.4g} … {entry.highest:.4g}",
                    f"{entry.minimum:.4g} … {entry.maximum:.4g}",
                    f"{entry.clipped_share:.4%}",
                    "saturated" if entry.saturated else "",
                )
                for entry in clipped
            ],
            right=("clipped",),
        )
    _curve(report)
    _fits(report)
    for text in _sentences(report):
        output.note(text)
    for warning in report.warnings:
        output.note(f"warning: {warning.message}")
    for text in report.notes:
        output.note(text)


def _short(tensor: str) -> str:
    """Return the end of a tensor's first name: fused operators carry the names of all their parts."""
    name = tensor.split(";")[0]
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"


def _more(total: int, shown: int | None, what: str) -> None:
    if shown is not None and total > shown:
        output.note(f"{total - shown} more {what}: --all or --json")


def _curve(report: CalibrationReport) -> None:
    if not report.curve:
        return
    with_accuracy = any(point.accuracy is not None for point in report.curve)
    output.emit_table(
        "int8 by number of calibration samples",
        ("samples", "SQNR dB", "top-1 as float", *(("accuracy",) if with_accuracy else ())),
        [
            (
                f"{point.samples:,}",
                "" if point.sqnr_db is None else f"{point.sqnr_db:.1f}",
                "" if point.agreement is None else f"{point.agreement:.1%}",
                *(("" if point.accuracy is None else f"{point.accuracy:.2%}",) if with_accuracy else ()),
            )
            for point in report.curve
        ],
        right=("samples", "SQNR dB", "top-1 as float", "accuracy"),
    )


def _fits(report: CalibrationReport) -> None:
    fits = [fit for fit in report.evidence.fits if fit.misfit is not None or fit.answers is not None or fit.accuracy]
    if len(fits) < 2:  # noqa: PLR2004 - one alone compares with nothing
        return
    from tflotilla.host.models.calibration import rivals

    columns = {"misfit": _misfit, "confidence": _confidence, "tells, nats": _tells, "accuracy": _accuracy}
    used = {name: made for name, made in columns.items() if any(made(fit) for fit in fits)}
    output.emit_table(
        "the samples under other preprocessings",
        ("preprocess", *used),
        [
            (rivals.spell(fit.preprocessing) + (" (given)" if i == 0 else ""), *(made(fit) for made in used.values()))
            for i, fit in enumerate(fits)
        ],
        right=tuple(used),
    )


def _misfit(fit: Fit) -> str:
    return "" if fit.misfit is None else f"{fit.misfit:.3f}"


def _confidence(fit: Fit) -> str:
    return "" if fit.answers is None else f"{fit.answers.confidence:.0%}"


def _tells(fit: Fit) -> str:
    return "" if fit.answers is None else f"{fit.answers.information:.2f}"


def _accuracy(fit: Fit) -> str:
    return "" if fit.accuracy is None else f"{fit.accuracy:.1%}"


def _sentences(report: CalibrationReport) -> list[str]:
    found = []
    saturated = [entry for entry in report.saturation if entry.saturated]
    if report.saturation and not saturated:
        found.append(
            f"no tensor saturates: calibrated with {report.calibrated_with} samples, run on the other {report.held_out}"
        )
    dead = [entry for entry in report.ranges if entry.dead_channels]
    if dead:
        channels = sum(entry.dead_channels for entry in dead)
        found.append(f"channels that are one and the same number on all samples: {channels}, of {len(dead)} tensors")
    if report.curve:
        unseen = "that calibration has not seen" if report.compared_on_held_out else "of those it was calibrated with"
        found.append(f"SQNR and top-1 are against the float model, number of samples {unseen}: {report.compared_on}")
    if report.float_accuracy is not None:
        found.append(f"float accuracy on {report.labelled:,} labelled samples: {report.float_accuracy:.2%}")
    if report.enough is not None:
        first = "the first sample" if report.enough == 1 else f"{report.enough} samples"
        found.append(f"from {first} on, more change nothing")
    elif len(report.curve) > 1:
        found.append("the last samples still made a difference: calibrate with more")
    return found


def document(report: CalibrationReport) -> dict[str, Any]:
    """Return the report as JSON's values."""
    made: dict[str, Any] = codec.encode(report)
    from tflotilla.host.models.calibration import rivals

    for entry, fit in zip(made["evidence"]["fits"], report.evidence.fits, strict=True):
        entry["preprocess"] = rivals.spell(fit.preprocessing)
        if fit.answers is not None:
            entry["answers"]["confidence"] = fit.answers.confidence
    return made | {"source": str(report.source), "calibration": str(report.calibration)}
