"""Plots of a calibration report: the curve over the number of samples, and how much of its range each tensor uses.

What it does NOT do: draw; `plots` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.models import plots

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.models.calibration.report import CalibrationReport
    from tflotilla.host.models.plots import Plot

_MOST_BARS = 40


def save(report: CalibrationReport, path: Path) -> tuple[Path, ...]:
    """Write the curve (where there is one) to `path`, and the ranges beside it; return what was written.

    Raises:
        InputError: a file can't be written.
        UsageError: neither .svg nor .png.

    """
    plots.check_suffix(path)
    beside = path.with_name(f"{path.stem}-ranges{path.suffix}")
    drawn = curve(report)
    if drawn is None:
        ranges(report).save(path)
        return (path,)
    drawn.save(path)
    ranges(report).save(beside)
    return (path, beside)


def curve(report: CalibrationReport) -> Plot | None:
    """Return accuracy, or without labels agreement, or without classes SQNR, over the number of samples."""
    points = report.curve
    if len(points) < 2:  # noqa: PLR2004 - one point is no curve
        return None
    shares = {
        "accuracy": [(p.samples, p.accuracy) for p in points if p.accuracy is not None],
        "top-1 as float": [(p.samples, p.agreement) for p in points if p.agreement is not None],
    }
    series = [
        plots.Series(name=name, x=tuple(float(n) for n, _ in found), y=tuple(100 * share for _, share in found))
        for name, found in shares.items()
        if found
    ]
    label = "%"
    if not series:
        found = [(p.samples, p.sqnr_db) for p in points if p.sqnr_db is not None]
        series = [plots.Series(name="SQNR", x=tuple(float(n) for n, _ in found), y=tuple(db for _, db in found))]
        label = "SQNR against float, dB"
    return plots.lines(
        series=series,
        title=f"{report.source.name}: int8 by number of calibration samples",
        x_label="calibration samples",
        y_label=label,
        log_x=True,
    )


def ranges(report: CalibrationReport) -> Plot:
    """Return the share of its range that the bulk of each tensor's values takes, worst first."""
    shown = report.ranges[:_MOST_BARS]
    return plots.bars(
        labels=[entry.tensor for entry in shown],
        values=[100 * entry.bulk_share for entry in shown],
        title=f"{report.source.name}: share of the range that 99.8 % of the values take",
        value_label="%",
        highlight=[i for i, entry in enumerate(shown) if entry.ruled_by_outliers],
    )
