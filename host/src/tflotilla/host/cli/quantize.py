"""`tflotilla quantize`: the smallest or fastest variant of a model that loses no more than is allowed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.models.accuracy_aware import QuantizationReport, Step
    from tflotilla.host.models.accuracy_aware.steps import Findings
    from tflotilla.host.models.metrics import Metric

_KIB = 1024
_MS = 1e6
_SHOWN_LAYERS = 2
_TOLD_LAYERS = 8
_NAME_LENGTH = 40
_SMALL = 0.0005
_Choice = TypeVar("_Choice", bound=StrEnum)


def quantize(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help=".keras, .h5, SavedModel folder, frozen graph .pb, or float .tflite."),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.tflite", help="The file that comes out.")],
    max_drop: Annotated[
        float,
        typer.Option(
            help="How much may be lost against float: 0.01 is one point of accuracy or mAP, a cosine of 0.99, "
            "or 20 dB SQNR."
        ),
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(help="Representative data: image folder, .npy or .npz. Default: --data."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled data, as `evaluate` takes them. Without: likeness to float on --calibration."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE: unit,resize=crop."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file, one label a line.")] = None,
    label_offset: Annotated[
        int, typer.Option(help="Added to labels given as numbers: 1 for models whose class 0 is background.")
    ] = 0,
    metric: Annotated[
        str | None,
        typer.Option(
            help="accuracy, map, cosine or sqnr. Default: by model and data; without --data cosine (sqnr for single "
            "numbers)."
        ),
    ] = None,
    prefer: Annotated[
        str, typer.Option(help="size or latency: which decides among the variants that lose no more than allowed.")
    ] = "size",
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="int8, dynamic_range, float16, int16x8: what may be tried; repeated. Default: all of them."),
    ] = None,
    edges: Annotated[
        str, typer.Option(help="uint8, int8 or float: inputs and outputs of the int8 variants.")
    ] = "uint8",
    samples: Annotated[int, typer.Option(min=1, help="How many calibration samples to use at most.")] = 100,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge on at most so many samples, spread evenly.")] = None,
    hold_out: Annotated[
        bool,
        typer.Option(help="Search on one half of the labelled data and prove on the other, where there are enough."),
    ] = True,
    max_steps: Annotated[int, typer.Option(min=1, help="How many variants to try at most.")] = 40,
    runtime: Annotated[
        str | None, typer.Option(help="ai-edge-litert or tflite-runtime. Default: the target's, or the newest here.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads per inference.")] = 1,
    target_runtime: Annotated[
        str | None, typer.Option(help="NAME==VERSION that must run the file, like tflite-runtime==2.14.0.")
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
        Path | None, typer.Option(metavar="FILE.svg|.png", help="Size against drop, marks as large as the latency.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout: the whole path.")] = False,
) -> None:
    """Quantize as far as a model stands it: int8, the worst layers kept in float, until no more is lost than allowed.

    Example: tflotilla quantize digits.keras -o digits.tflite --max-drop 0.01 --calibration photos/ --data held-out/
    --preprocess unit

    Exit codes: 0 written, 2 usage, 3 model or data can't be used, 7 the runtime is not installed here, 12 nothing
    loses so little (says what came nearest; no file is written).
    """
    from tflotilla.host.models import convert as conversion
    from tflotilla.host.models.accuracy_aware import NothingMeetsError, QuantizationRequest
    from tflotilla.host.models.accuracy_aware import quantize as search
    from tflotilla.host.models.accuracy_aware.edges import Edges
    from tflotilla.host.models.accuracy_aware.search import SCHEMES, Prefer
    from tflotilla.host.models.metrics import Metric
    from tflotilla.host.models.sources import SourceOptions
    from tflotilla.host.models.sources.shapes import parse_input_shapes

    if plot is not None:
        from tflotilla.host.models import plots

        plots.check_suffix(plot)
        output.check_writable(plot)
    request = QuantizationRequest(
        source=source,
        output=out,
        max_drop=max_drop,
        calibration=calibration,
        data=data,
        preprocess=preprocess,
        labels=labels,
        label_offset=label_offset,
        metric=None if metric is None else _one_of(Metric, metric, "--metric"),
        samples=samples,
        limit=limit,
        schemes=conversion.parse_schemes(scheme) if scheme else SCHEMES,
        prefer=_one_of(Prefer, prefer, "--prefer"),
        edges=_one_of(Edges, edges, "--edges"),
        runtime=runtime,
        num_threads=threads,
        target=None if target_runtime is None else conversion.parse_target(target_runtime),
        max_steps=max_steps,
        hold_out=hold_out,
        options=SourceOptions(
            input_arrays=_names(input_arrays),
            output_arrays=_names(output_arrays),
            input_shapes=parse_input_shapes(input_shapes or ()),
            signature=signature,
            allow_code=allow_code,
        ),
    )
    try:
        with output.progress(f"quantizing {source.name}") as say:
            report = search(request, say)
    except NothingMeetsError as error:
        if as_json:
            output.emit_json({"source": str(source), "max_drop": max_drop, "taken": None} | _path(error.findings))
        else:
            _show_path(source, error.findings)
        raise
    if plot is not None:
        _plot(report, plot)
    if as_json:
        output.emit_json(_document(report))
    else:
        _show(report)


def _one_of(kind: type[_Choice], text: str, option: str) -> _Choice:
    from tflotilla.shared.contract.errors import UsageError

    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{option} {text!r}: expected one of {', '.join(kind)}") from None


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _show(report: QuantizationReport) -> None:
    _show_path(report.source, report.findings)
    _tell_taken(report)
    for text in report.notes:
        output.note(text)


def _show_path(source: Path, found: Findings) -> None:
    output.emit_table(
        f"{source.name}: {found.samples:,} samples, {found.runtime} on this machine",
        ("step", "variant", "in float", found.metric.value, "drop", "KiB", "p50 ms", "verdict"),
        [_float_row(found), *(_row(number, step, found) for number, step in enumerate(found.steps, 1))],
        right=("step", found.metric.value, "drop", "KiB", "p50 ms"),
    )
    for step in found.steps:
        if step.refused is not None:
            output.note(
                f"{step.scheme.value}{' with layers in float' if step.kept else ''}: not measured: {step.refused}"
            )


def _tell_taken(report: QuantizationReport) -> None:
    from tflotilla.host.models.accuracy_aware.run import describe

    found, taken = report.findings, report.taken
    smaller = found.float_size_bytes / report.inspection.size_bytes
    pace = ""
    if taken.p50_ns and found.float_p50_ns:
        pace = (
            f", {found.float_p50_ns / taken.p50_ns:.2f}× float's pace (p50 of {taken.runs} and {found.float_runs} runs)"
        )
    output.note(
        f"taken: {describe(taken)}: {report.inspection.size_bytes / _KIB:,.1f} KiB ({smaller:.2f}× smaller than float, "
        f"zipped {report.compressed_bytes / _KIB:,.1f}), drop {taken.drop:.4g} of {report.max_drop:g}{pace}"
    )
    if taken.kept:
        more = f" and {len(taken.kept) - _TOLD_LAYERS} more" if len(taken.kept) > _TOLD_LAYERS else ""
        output.note("kept in float, worst first: " + ", ".join(map(short, taken.kept[:_TOLD_LAYERS])) + more)
    for proof in found.proofs:
        verdict = "within" if proof.meets else "beyond"
        output.note(
            f"on {proof.samples:,} samples held back: float {proof.float_value:.4f}, this {proof.value:.4f}, "
            f"drop {proof.drop:.4g}: {verdict} the bound"
        )


def _float_row(found: Findings) -> tuple[str, ...]:
    return (
        "0",
        "float32",
        "all",
        _value(found.float_value, found.metric),
        "",
        f"{found.float_size_bytes / _KIB:,.1f}",
        "" if found.float_p50_ns is None else f"{found.float_p50_ns / _MS:.3f}",
        "what is compared with",
    )


def _row(number: int, step: Step, found: Findings) -> tuple[str, ...]:
    words = ["edges"] if step.float_edges else []
    if step.kept:
        words.append(kept_in_words(step.kept, [layer.name for layer in found.layers]))
    return (
        str(number),
        step.scheme.value,
        "; ".join(words),
        "" if step.value is None else _value(step.value, found.metric),
        ""
        if step.drop is None
        else f"{step.drop:.4f}"
        if step.drop >= _SMALL or step.drop <= 0
        else f"{step.drop:.1e}",
        "" if step.size_bytes is None else f"{step.size_bytes / _KIB:,.1f}",
        "" if step.p50_ns is None else f"{step.p50_ns / _MS:.3f}",
        _verdict(step),
    )


def _verdict(step: Step) -> str:
    if step.refused is not None:
        return "not measured"
    said = "taken" if step.taken else "meets the bound" if step.meets else "loses too much"
    return f"{said}, Pareto" if step.pareto else said


def _value(value: float, metric: Metric) -> str:
    from tflotilla.host.models.metrics import Metric

    if metric is Metric.SQNR:
        return f"{value:.1f} dB"
    return f"{value:.6f}" if metric is Metric.COSINE else f"{value:.2%}"


def kept_in_words(kept: Sequence[str], ranked: Sequence[str]) -> str:
    """Name the kept layers by their places in the ranking: `the 8 worst, to conv_7`, `the 8 worst but conv_3`."""
    if len(kept) <= _SHOWN_LAYERS:
        return ", ".join(map(short, kept))
    last = max(ranked.index(name) for name in kept)
    back = [name for name in ranked[:last] if name not in kept]
    if not back:
        return f"the {len(kept)} worst, to {short(ranked[last])}"
    more = f" +{len(back) - _SHOWN_LAYERS}" if len(back) > _SHOWN_LAYERS else ""
    return f"the {last + 1} worst but {', '.join(map(short, back[:_SHOWN_LAYERS]))}{more}"


def short(name: str) -> str:
    """Return a layer's name without what was fused into it: the first part, from its end."""
    first = name.split(";")[0]
    return first if len(first) <= _NAME_LENGTH else "…" + first[1 - _NAME_LENGTH :]


def _plot(report: QuantizationReport, path: Path) -> None:
    from tflotilla.host.models import plots

    found = report.findings
    points = [
        plots.Point(
            label="float32",
            x=found.float_size_bytes / _KIB,
            y=found.float_value,
            group="what is compared with",
            size=found.float_p50_ns,
        ),
        *(
            plots.Point(
                label=f"int8 + {len(step.kept)} float" if step.kept else step.scheme.value,
                x=step.size_bytes / _KIB,
                y=step.value,
                group="meets the bound" if step.meets else "loses too much",
                size=step.p50_ns,
                highlight=step.taken,
            )
            for step in found.steps
            if step.value is not None and step.size_bytes is not None
        ),
    ]
    plots.scatter(
        points=points,
        title=f"{report.source.name}: at most {report.max_drop:g} less than float",
        x_label="size in KiB; marks as large as the latency",
        y_label=found.metric.value,
    ).save(path)


def _document(report: QuantizationReport) -> dict[str, Any]:
    return {
        "source": str(report.source),
        "format": report.format,
        "output": str(report.output),
        "max_drop": report.max_drop,
        "prefer": report.prefer.value,
        "size_bytes": report.inspection.size_bytes,
        "compressed_bytes": report.compressed_bytes,
        "sha256": report.inspection.sha256,
        "inputs": codec.encode(report.inspection.inputs),
        "outputs": codec.encode(report.inspection.outputs),
        "requirements": codec.encode(report.inspection.requirements),
        "kept": list(report.taken.kept),
        "taken": report.findings.steps.index(report.taken) + 1,
        **_path(report.findings),
        "notes": list(report.notes),
    }


def _path(findings: Findings) -> dict[str, Any]:
    """Return what was found, without the names of files that are gone."""
    found: dict[str, Any] = codec.encode(findings)
    steps = found.pop("steps")
    return found | {"path": [{name: value for name, value in step.items() if name != "file"} for step in steps]}
