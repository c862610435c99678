"""The layer-wise report as a plot: how loud the noise of every layer is, the loudest on top.

What it does NOT do: draw; `plots` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.models import plots
from tflotilla.host.models.layers.report import BEST_DB, Sort, ranked

if TYPE_CHECKING:
    from tflotilla.host.models.layers.report import LayerError, LayerReport
    from tflotilla.host.models.plots import Plot

MOST_BARS = 40
#: More than this share of values cut off is no rounding.
_LOUD_SATURATION = 0.001


def noise_plot(report: LayerReport, by: Sort = Sort.LOCAL, *, most: int = MOST_BARS) -> Plot:
    """Return a bar for each of the worst layers: RMS of its error, in percent of the RMS of its values.

    Layers that cut values off are in another colour. Layers without any error, which only move numbers, are left out.
    """
    layers = [layer for layer in ranked(report.layers, by) if _db(layer, by) is not None][:most]
    decibels = [_db(layer, by) or 0.0 for layer in layers]
    whose = "so far" if by is Sort.ACCUMULATED else "per layer"
    return plots.bars(
        labels=[f"{layer.operator} {layer.op} {layer.tensor}" for layer in layers],
        values=[100 * 10 ** (-db / 20) for db in decibels],
        title=f"Noise {whose}",
        value_label="error, % of signal (hatched: cut off)",
        highlight=[n for n, layer in enumerate(layers) if (layer.saturated_share or 0) > _LOUD_SATURATION],
    )


def _db(layer: LayerError, by: Sort) -> float | None:
    alone = by is not Sort.ACCUMULATED and layer.local_sqnr_db is not None
    db = layer.local_sqnr_db if alone else layer.sqnr_db
    return None if db is None or db >= BEST_DB else db
