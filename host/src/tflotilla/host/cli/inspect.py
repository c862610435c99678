"""`tflotilla inspect`: what a model or a bundle is and needs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.host.models.inspect import ModelInspection
    from tflotilla.shared.contract.tensors import Quantization

_KIB = 1024


def inspect(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL|BUNDLE", help="A .tflite or .tflb file, or a bundle's folder.")
    ],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor, not only inputs and outputs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, with every tensor.")] = False,
) -> None:
    """Show tensors, quantization, ops with their versions, and which runtimes accept the model. Nothing is run.

    Example: tflotilla inspect digits-int8_io_uint8.tflite

    Exit codes: 0 shown, 3 not a model that can be read.
    """
    from tflotilla.host.bundles import archive
    from tflotilla.host.models.inspect import inspect_bytes, inspect_model
    from tflotilla.shared.contract import manifest

    title: str | None = None
    if model.suffix == archive.SUFFIX or (model.is_dir() and (model / manifest.MANIFEST).exists()):
        bundle = archive.Bundle.open(model)
        title = f"{bundle.manifest.title}, release {bundle.manifest.release}, bundle {bundle.digest[:12]}"
        found = inspect_bytes(bundle.read(manifest.MODEL), f"{model}: {manifest.MODEL}")
    else:
        found = inspect_model(model)
    if as_json:
        output.emit_json(_document(model, found, title))
    else:
        _show(model, found, title, tensors=tensors)


def _show(model: Path, found: ModelInspection, title: str | None, *, tensors: bool) -> None:
    output.emit_table(str(model), ("property", "value"), list(_summary(found, title)))
    edges = [("in", spec) for spec in found.inputs] + [("out", spec) for spec in found.outputs]
    output.emit_table(
        "inputs and outputs",
        ("", "name", "shape", "dtype", "quantization"),
        [(way, spec.name, _shape(spec.shape), spec.dtype, _quantization(spec.quantization)) for way, spec in edges],
    )
    output.emit_table(
        "operators",
        ("op", "version", "count", "kind"),
        [(op.name, str(op.version), str(op.count), op.kind) for op in found.ops],
        right=("version", "count"),
    )
    if tensors:
        output.emit_table(
            "tensors",
            ("graph", "#", "name", "shape", "dtype", "constant bytes", "quantization"),
            [
                (
                    str(tensor.subgraph),
                    str(tensor.index),
                    tensor.name,
                    _shape(tensor.shape),
                    tensor.dtype + (" sparse" if tensor.sparse else "") + (" variable" if tensor.variable else ""),
                    f"{tensor.constant_bytes:,}" if tensor.constant_bytes else "",
                    _quantization(tensor.quantization),
                )
                for tensor in found.tensors
            ],
            right=("graph", "#", "constant bytes"),
        )


def _summary(found: ModelInspection, title: str | None) -> Iterator[tuple[str, str]]:
    from tflotilla.host.models.convert import accepting

    needs = found.requirements
    if title is not None:
        yield "bundle", title
    yield "size", f"{found.size_bytes / _KIB:,.1f} KiB"
    yield "sha256", found.sha256
    yield "scheme", found.scheme.value
    yield "arithmetic", _arithmetic(found)
    yield "minimum runtime", needs.min_runtime_version or "not stated"
    yield "ops accepted by", accepting(found) or "none of the measured runtimes"
    if needs.custom_ops:
        yield "custom ops", ", ".join(needs.custom_ops)
    if needs.flex_ops:
        yield "TensorFlow ops", f"{', '.join(needs.flex_ops)} (need the Flex delegate)"
    arena = needs.arena_bytes
    yield "activations", "dynamic shapes" if arena is None else f"at least {arena / _KIB:,.1f} KiB"
    if len(found.subgraphs) > 1:
        yield "subgraphs", ", ".join(f"{g.name or i} ({g.operators} ops)" for i, g in enumerate(found.subgraphs))
    for signature in found.signatures:
        yield "signature", f"{signature.key}: {', '.join(signature.inputs)} → {', '.join(signature.outputs)}"
    if found.metadata:
        yield "metadata", ", ".join(found.metadata)
    if found.associated_files:
        yield "files inside", ", ".join(found.associated_files)
    if found.description:
        yield "description", found.description


def _arithmetic(found: ModelInspection) -> str:
    if found.integer_only:
        return "integer only"
    if not found.float_ops:
        return "integer, with float at the edges (QUANTIZE, DEQUANTIZE)"
    ops = ", ".join(f"{name} ({count})" for name, count in found.float_ops)
    return f"float: {ops}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join("?" if size == -1 else str(size) for size in shape) or "scalar"


def _quantization(quantization: Quantization | None) -> str:
    if quantization is None:
        return ""
    if len(quantization.scales) == 1:
        return f"{quantization.scales[0]:.6g} * (q - {quantization.zero_points[0]})"
    return f"per channel: {len(quantization.scales)} scales along axis {quantization.axis}"


def _document(model: Path, found: ModelInspection, title: str | None) -> dict[str, Any]:
    document: dict[str, Any] = codec.encode(found)
    return document | {"path": str(model), "bundle": title, "float_ops": dict(found.float_ops)}
