"""Plots of what was measured: how latencies are spread, what threads bring, what happens over time.

Rules: those of `plots`, through whose door everything is drawn: the same values give the same bytes, numbers that
aren't finite are left out, colour is never the only difference. What it does NOT do: choose what is worth showing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.models.plots import (
    COLOURS,
    DASHES,
    HEIGHT,
    INK,
    LABEL_LENGTH,
    MARKERS,
    WIDTH,
    Plot,
    Series,
    cut,
    draw_nothing,
    put_legend,
    scale_axes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEW = 36
_TALL = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A horizontal line with a name."""

    name: str
    y: float


def cumulative(*, series: Sequence[Series], title: str, x_label: str) -> Plot:
    """Return the share of runs (y, 0..1) that took at most so long (x, ascending), as steps, on a logarithmic x."""

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's Axes, behind its door
        shown = [(each, _pairs(each, positive=True)) for each in series]
        scale_axes(axes, x_label, "share of runs", log_x=any(pairs for _, pairs in shown))
        for number, (each, pairs) in enumerate(shown):
            if pairs:
                axes.plot(
                    [x for x, _ in pairs],
                    [y for _, y in pairs],
                    drawstyle="steps-post",
                    linewidth=1.6,
                    label=cut(each.name, LABEL_LENGTH),
                    **_style(number),
                )
        axes.set_ylim(0, 1.02)
        _finish(axes, any(pairs for _, pairs in shown))

    return Plot(title=title, width_in=WIDTH, height_in=_height(len(series)), draw=draw)


def scaling(*, series: Sequence[Series], title: str) -> Plot:
    """Return how many times faster (y) than with the fewest threads so many threads (x) are, beside what is ideal."""

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's Axes, behind its door
        scale_axes(axes, "threads", "times as fast")
        shown = [(each, _pairs(each, positive=True)) for each in series]
        threads = sorted({x for _, pairs in shown for x, _ in pairs})
        for number, (each, pairs) in enumerate(shown):
            if pairs:
                axes.plot(
                    [x for x, _ in pairs],
                    [y for _, y in pairs],
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=5,
                    linewidth=1.6,
                    label=cut(each.name, LABEL_LENGTH),
                    **_style(number),
                )
        if threads:
            ideal = [x / threads[0] for x in threads]
            axes.plot(threads, ideal, color=INK, alpha=0.55, linestyle=DASHES[2], linewidth=1.2, label="ideal")
            axes.set_xticks(threads, [f"{each:g}" for each in threads])
            axes.set_ylim(bottom=0)
        _finish(axes, bool(threads))

    return Plot(title=title, width_in=WIDTH, height_in=_height(len(series) + 1), draw=draw)


def over_time(
    *,
    series: Sequence[Series],
    title: str,
    y_label: str,
    other: Sequence[Series] = (),
    other_label: str = "",
    marks: Sequence[Mark] = (),
    dots: bool = False,
) -> Plot:
    """Return quantities over seconds; those in `other` have a scale of their own on the right, dashed.

    With `dots` the first are single runs: points instead of a line.
    """

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib's Axes, behind its door
        scale_axes(axes, "seconds", y_label)
        shown = [(each, _pairs(each)) for each in series]
        for number, (each, pairs) in enumerate(shown):
            look: dict[str, Any] = _style(number)
            if dots:
                look |= {"linestyle": "none", "marker": ".", "markersize": 3, "alpha": 0.55}
            elif len(pairs) <= _FEW:
                look |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 4.5}
            name = cut(each.name, LABEL_LENGTH)
            axes.plot([x for x, _ in pairs], [y for _, y in pairs], linewidth=1.6, label=name, **look)
        for number, mark in enumerate(marks, len(shown)):
            if math.isfinite(mark.y):
                axes.axhline(mark.y, linewidth=1.2, label=cut(mark.name, LABEL_LENGTH), **_style(number, dashed=True))
        others = [(each, _pairs(each)) for each in other]
        if any(pairs for _, pairs in others):
            _draw_other(axes, others, other_label, first=len(shown) + len(marks))
        _finish(axes, any(pairs for _, pairs in (*shown, *others)))

    entries = len(series) + len(other) + len(marks)
    return Plot(title=title, width_in=WIDTH, height_in=_height(entries), draw=draw)


def _draw_other(
    axes: Any,  # noqa: ANN401 - matplotlib's Axes, behind its door
    others: Sequence[tuple[Series, list[tuple[float, float]]]],
    label: str,
    *,
    first: int,
) -> None:
    right = axes.twinx()
    right.grid(visible=False)
    right.spines["right"].set_visible(True)
    right.set_ylabel(label)
    for number, (each, pairs) in enumerate(others, first):
        look = _style(number, dashed=True)
        right.plot([x for x, _ in pairs], [y for _, y in pairs], linewidth=1.4, **look)
        # The legend is made of what the first axes hold.
        axes.plot([], [], linewidth=1.4, label=cut(each.name, LABEL_LENGTH), **look)


def _style(number: int, *, dashed: bool = False) -> dict[str, Any]:
    dash = 1 + number % (len(DASHES) - 1) if dashed else number // len(COLOURS) % len(DASHES)
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[dash]}


def _pairs(series: Series, *, positive: bool = False) -> list[tuple[float, float]]:
    return [
        (x, y)
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not positive)
    ]


def _finish(axes: Any, something: bool) -> None:  # noqa: ANN401, FBT001 - matplotlib's Axes; whether there is anything
    if something:
        put_legend(axes)
    else:
        draw_nothing(axes)


def _height(entries: int) -> float:
    return min(HEIGHT + 0.2 * (entries // 2), _TALL + HEIGHT)
