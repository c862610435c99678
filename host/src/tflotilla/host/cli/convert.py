"""`tflotilla convert`: from a trained model to TFLite files of one or more schemes."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from tflotilla.host.models.convert import ConversionReport, ConvertedFile

_SHOWN_OPS = 2
_KIB = 1024


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help=".keras, .h5, SavedModel folder, frozen graph .pb, float .tflite, .onnx."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="Folder for STEM-SCHEME.tflite, or one file.tflite."),
    ],
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, float16, dynamic_range, int8, int8_io_uint8, int8_io_int8, int16x8 or all; repeated. "
            "Default float32."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Representative data for the integer schemes: image folder, .npy or .npz.")
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE: unit,resize=crop."),
    ] = None,
    target_runtime: Annotated[
        str | None, typer.Option(help="NAME==VERSION that must run the files, like tflite-runtime==2.14.0.")
    ] = None,
    input_arrays: Annotated[
        str | None, typer.Option(help="Frozen graph: names of the input nodes, separated by commas.")
    ] = None,
    output_arrays: Annotated[
        str | None, typer.Option(help="Frozen graph: names of the output nodes, separated by commas.")
    ] = None,
    input_shapes: Annotated[
        list[str] | None,
        typer.Option(
            help="1,224,224,3, or NAME=1,224,224,3 where there are several; repeated, or separated by ';'. "
            "Frozen graph: ? leaves a dimension open."
        ),
    ] = None,
    signature: Annotated[str | None, typer.Option(help="SavedModel: which signature.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many calibration samples to use at most.")] = 100,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale per int8 weight tensor instead of one per output channel.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run Python that the model file carries (Lambda layers).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> int:
    """Convert a trained model to TFLite, and run every file before it is handed over.

    Example: tflotilla convert digits.keras -o converted --scheme all --calibration photos/ --preprocess unit
    --target-runtime tflite-runtime==2.14.0

    Exit codes: 0 every scheme was made, 2 usage, 3 model or data can't be used, 12 a scheme can't be made (the others
    were; `all` asks for what can be made).
    """
    from tflotilla.host.models import convert as conversion
    from tflotilla.host.models.sources import SourceOptions
    from tflotilla.host.models.sources.shapes import parse_input_shapes
    from tflotilla.shared.contract.errors import ConversionError

    asked = scheme or ["float32"]
    request = conversion.ConversionRequest(
        source=source,
        output=out,
        schemes=conversion.parse_schemes(asked),
        calibration=calibration,
        preprocess=preprocess,
        target=None if target_runtime is None else conversion.parse_target(target_runtime),
        samples=samples,
        per_channel=not per_tensor,
        options=SourceOptions(
            input_arrays=_names(input_arrays),
            output_arrays=_names(output_arrays),
            input_shapes=parse_input_shapes(input_shapes or ()),
            signature=signature,
            allow_code=allow_code,
        ),
    )
    with output.progress(f"converting {source.name}") as say:
        report = conversion.convert(request, say)
    if as_json:
        output.emit_json(_document(report))
    else:
        _show(report)
    missing = [s for s in report.failures if "all" not in asked]
    for failed in missing:
        output.complain(f"{source}: {failed.value}: {report.failures[failed]}")
    return ConversionError.exit_code if missing else 0


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _show(report: ConversionReport) -> None:
    output.emit_table(
        f"{report.source.name} ({report.format}) → {report.files[0].path.parent}",
        ("file", "scheme", "KiB", "zipped", "in → out", "SQNR dB", "min runtime", "runs on", "ops"),
        [_row(made) for made in report.files],
        right=("KiB", "zipped", "SQNR dB"),
    )
    scales = {made.scheme.value: made.weight_scales for made in report.files if made.weight_scales is not None}
    for kind in dict.fromkeys(scales.values()):
        output.note(f"scales of weights {kind}: {', '.join(name for name, found in scales.items() if found == kind)}")
    for made in report.files:
        floats = made.inspection.float_ops
        if made.scheme.needs_calibration and floats:
            output.note(f"{made.scheme.value}: stayed float: {', '.join(f'{name} ({n})' for name, n in floats)}")
    failing: dict[tuple[str, str], list[str]] = {}
    for made in report.files:
        for runtime, reason in made.fails_on.items():
            failing.setdefault((runtime, reason), []).append(made.scheme.value)
    for (runtime, reason), schemes in failing.items():
        output.note(f"{', '.join(schemes)}: not on {runtime}: {reason}")
    for scheme, reason in report.failures.items():
        output.note(f"{scheme.value}: not made: {reason}")
    for text in report.notes:
        output.note(text)


def _row(made: ConvertedFile) -> tuple[str, ...]:
    from tflotilla.host.models.convert import accepting

    found = made.inspection
    ops = sorted(found.ops, key=lambda op: (-op.count, op.name))
    more = f" +{len(ops) - _SHOWN_OPS}" if len(ops) > _SHOWN_OPS else ""
    sqnr_db = made.fidelity.sqnr_db
    return (
        made.path.name,
        made.scheme.value,
        f"{found.size_bytes / _KIB:,.1f}",
        f"{made.compressed_bytes / _KIB:,.1f}",
        " → ".join(",".join(dict.fromkeys(spec.dtype for spec in specs)) for specs in (found.inputs, found.outputs)),
        f"{sqnr_db:.0f}" if sqnr_db is not None else ("not tried" if made.fidelity.runtime is None else "too flat"),
        found.requirements.min_runtime_version or "",
        accepting(found, without=made.fails_on).replace("ai-edge-litert", "litert").replace("tflite-runtime", "tflite"),
        ", ".join(f"{op.name} v{op.version}" for op in ops[:_SHOWN_OPS]) + more,
    )


def _document(report: ConversionReport) -> dict[str, Any]:
    return {
        "source": str(report.source),
        "format": report.format,
        "inputs": codec.encode(report.inputs),
        "outputs": list(report.outputs),
        "preprocessing": codec.encode(report.preprocessing),
        "notes": list(report.notes),
        "failures": {scheme.value: reason for scheme, reason in report.failures.items()},
        "files": [
            {
                "path": str(made.path),
                "scheme": made.scheme.value,
                "size_bytes": made.inspection.size_bytes,
                "compressed_bytes": made.compressed_bytes,
                "sha256": made.inspection.sha256,
                "inputs": codec.encode(made.inspection.inputs),
                "outputs": codec.encode(made.inspection.outputs),
                "integer_only": made.inspection.integer_only,
                "weight_scales": made.weight_scales,
                "float_ops": dict(made.inspection.float_ops),
                "requirements": codec.encode(made.inspection.requirements),
                "fidelity": codec.encode(made.fidelity),
                "fails_on": dict(made.fails_on),
            }
            for made in report.files
        ],
    }
