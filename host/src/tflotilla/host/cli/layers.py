"""`tflotilla layers`: where a quantized model loses its numbers, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.host.models.layers import LayerError, LayerReport, WeightError

_SHOWN = 20
_NAME_LENGTH = 36
#: Columns of a terminal that has room for everything.
_WIDE = 160
_BAR_LENGTH = 10
#: From here on rounding is nothing that anybody sees: an empty bar.
_QUIET_DB = 60.0
_EXACT_DB = 200.0
_MOST_REASONS = 8


def layers(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="Any quantized .tflite, whoever made it.")],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FLOAT.tflite",
            help="The float model it was made from: the rounding of weights counts too. Default: its float twin.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Data to run: image folder, .npy or .npz. Default: random noise.")
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE: unit,resize=crop."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many samples to run at most, spread evenly.")] = 20,
    sort: Annotated[
        str, typer.Option(help="What the worst layer is worst by: local, accumulated, rmse, or operator for none.")
    ] = "local",
    top: Annotated[int, typer.Option(min=0, help="How many layers and weights to show; 0 is all.")] = _SHOWN,
    runtime: Annotated[str | None, typer.Option(help="ai-edge-litert or tflite-runtime; default the first.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg|.png", help="Write the errors as a plot.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, with every layer.")] = False,
) -> None:
    """Show how much each layer of a quantized model rounds, cuts off and wastes; the worst first.

    "alone" is what one layer adds, "so far" what has come together up to it: both against exact arithmetic.
    Rounding alone gives an RMSE of 0.29 steps.

    Example: tflotilla layers digits-int8.tflite --against digits-float32.tflite --calibration photos/ --preprocess unit

    Exit codes: 0 measured, 2 usage, 3 model or data can't be used, or nothing in the model is quantized, 7 no runtime.
    """
    from tflotilla.host.models import layers as layerwise
    from tflotilla.shared.contract.errors import UsageError

    orders = [each.value for each in layerwise.Sort]
    if sort not in orders:
        raise UsageError(f"--sort {sort!r}: expected one of {', '.join(orders)}")
    by = layerwise.Sort(sort)
    if plot is not None:
        _check_plot(plot)
    with output.progress(f"measuring {model.name}") as say:
        report = layerwise.measure(
            model,
            against=against,
            data=calibration,
            preprocess=preprocess,
            samples=samples,
            runtime=runtime,
            on_progress=say,
        )
    if plot is not None:
        from tflotilla.host.models.layers.picture import noise_plot

        noise_plot(report, by).save(plot)
    ordered = layerwise.ranked(report.layers, by)
    if as_json:
        output.emit_json(_document(report, ordered))
    else:
        _show(report, ordered, top or len(ordered) + len(report.weights))


def _check_plot(plot: Path) -> None:
    from tflotilla.host.models import delivery, plots

    plots.check_suffix(plot)
    delivery.check_writable(plot)


def _show(report: LayerReport, ordered: Sequence[LayerError], top: int) -> None:
    columns = [column for column in _COLUMNS if output.console().width >= column.from_width]
    output.emit_table(
        f"{report.model.name} ({report.scheme.value})",
        [column.head for column in columns],
        [[column.cell(layer) for column in columns] for layer in ordered[:top]],
        right=[column.head for column in columns if column.is_figure],
    )
    if report.weights:
        output.emit_table(
            "weights",
            ("#", "op", "weights", "dtype", "values", "scales", "scale from", "to", "bits", "RMSE/scale", "SQNR dB"),
            [_weight(weight) for weight in report.weights[:top]],
            right=("#", "values", "scales", "scale from", "to", "bits", "RMSE/scale", "SQNR dB"),
        )
    for text in _words(report, ordered, top):
        output.note(text)


def _words(report: LayerReport, ordered: Sequence[LayerError], top: int) -> Iterator[str]:
    reference = "its float twin (the same weights, nothing rounded)" if report.against is None else report.against.name
    yield f"{report.model.name} against {reference}: {report.samples} samples on {report.runtime}"
    left = max(0, len(ordered) - top), max(0, len(report.weights) - top)
    if any(left):
        yield f"{left[0]} more layers and {left[1]} more weights: --top 0 shows all"
    for made in report.outputs:
        if made.sqnr_db is not None:
            unit = "" if made.sqnr_db >= _EXACT_DB else " dB"
            yield f"end to end, {_short(made.tensor)}: {_db(made.sqnr_db)}{unit}"
    for each in report.unmeasured[:_MOST_REASONS]:
        yield f"not measured: {each.operator} {each.op} {_short(each.tensor)}: {each.reason}"
    if len(report.unmeasured) > _MOST_REASONS:
        yield f"not measured: {len(report.unmeasured) - _MOST_REASONS} more, see --json"
    yield from report.notes


def _steps(layer: LayerError) -> str:
    steps = layer.local_rmse_over_scale if layer.local_rmse_over_scale is not None else layer.rmse_over_scale
    return "" if steps is None else f"{steps:.2f}"


def _exact_range(layer: LayerError) -> str:
    return _range(
        layer.minimum if layer.reference_minimum is None else layer.reference_minimum,
        layer.maximum if layer.reference_maximum is None else layer.reference_maximum,
    )


def _weight(weight: WeightError) -> tuple[str, ...]:
    return (
        str(weight.operator),
        weight.op,
        _short(weight.tensor),
        weight.dtype,
        _range(weight.minimum, weight.maximum),
        str(weight.scales),
        _number(weight.smallest_scale),
        _number(weight.largest_scale),
        "" if weight.worst_channel_bits is None else f"{weight.worst_channel_bits:.1f}",
        "" if weight.rmse_over_scale is None else f"{weight.rmse_over_scale:.2f}",
        _db(weight.sqnr_db),
    )


def _range(lowest: float | None, highest: float | None) -> str:
    return "" if lowest is None or highest is None else f"{lowest:.4g} … {highest:.4g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _db(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value >= _EXACT_DB else f"{value:.1f}"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if not value else f"{100 * value:.2g} %"


def _bar(sqnr_db: float | None) -> str:
    if sqnr_db is None:
        return ""
    return "█" * round(_BAR_LENGTH * min(1.0, max(0.0, (_QUIET_DB - sqnr_db) / _QUIET_DB)))


def _short(name: str) -> str:
    """Shorten in the middle: names of fused layers are lists of names, and differ at both ends."""
    if len(name) <= _NAME_LENGTH:
        return name
    half = (_NAME_LENGTH - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column of the table of layers; narrow terminals do without some."""

    head: str
    #: From a LayerError.
    cell: Callable[..., str]
    is_figure: bool = True
    from_width: int = 0


_COLUMNS = (
    _Column(head="#", cell=lambda layer: "" if layer.operator < 0 else str(layer.operator)),
    _Column(head="op", cell=lambda layer: layer.op, is_figure=False),
    _Column(head="tensor", cell=lambda layer: _short(layer.tensor), is_figure=False),
    _Column(head="dtype", cell=lambda layer: layer.dtype, is_figure=False, from_width=_WIDE),
    _Column(head="values", cell=_exact_range),
    _Column(
        head="range",
        cell=lambda layer: _range(layer.representable_minimum, layer.representable_maximum),
        from_width=_WIDE,
    ),
    _Column(head="scale", cell=lambda layer: _number(layer.scale)),
    _Column(head="zero", cell=lambda layer: "" if layer.zero_point is None else str(layer.zero_point)),
    _Column(head="RMSE/scale", cell=_steps),
    _Column(head="SQNR dB alone", cell=lambda layer: _db(layer.local_sqnr_db)),
    _Column(head="so far", cell=lambda layer: _db(layer.sqnr_db)),
    _Column(head="cut off", cell=lambda layer: _share(layer.saturated_share)),
    _Column(head="unused", cell=lambda layer: _share(layer.unused_share), from_width=_WIDE),
    _Column(
        head="noise",
        cell=lambda layer: _bar(layer.local_sqnr_db if layer.local_sqnr_db is not None else layer.sqnr_db),
        is_figure=False,
        from_width=_WIDE,
    ),
)


def _document(report: LayerReport, ordered: Sequence[LayerError]) -> dict[str, Any]:
    document: dict[str, Any] = codec.encode(report)
    return document | {
        "model": str(report.model),
        "against": None if report.against is None else str(report.against),
        "layers": codec.encode(ordered),
    }
