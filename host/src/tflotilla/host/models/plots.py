"""Plots that are shown in pages, in terminals' viewers and on phones: the one door to matplotlib.

Rules: the same values give the same SVG, byte for byte. An SVG has a viewBox and no size, so it scales; its text is
text, in the reader's own sans-serif; axes and words take the colour of the text around them (`currentColor`), so it is
readable on dark and on light. A PNG, which can't adapt, has a white ground. Colours are Okabe and Ito's, told apart by
the colour-blind too (Color Universal Design, 2008), and never the only difference: markers and dashes differ as well.

What it does NOT do: keep state (no pyplot), read the user's matplotlibrc, or fetch anything. A number that isn't finite
is left out of a plot; saying why is the caller's.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import logging
import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.models.delivery import deliver
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

SUFFIXES = (".svg", ".png")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
#: What matplotlib draws text and axes in; SVG files say `currentColor` instead.
INK = "#1f2328"
_STYLE = (
    "<style>.tfl-plot{color:#1f2328;font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){.tfl-plot{color:#e6edf3}}</style>"
)
#: Inches: small, so that the letters are still letters where the plot is as wide as a phone.
WIDTH = 5.4
HEIGHT = 3.5
_BAR_HEIGHT = 0.24
_HEAD_HEIGHT = 1.05
_MOST_BARS_HEIGHT = 40.0
LABEL_LENGTH = 34
_TITLE_LENGTH = 62
_PNG_DPI = 160
_MANY = 12
_SIDE_BY_SIDE = 3
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tflotilla",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.unicode_minus": True,
    "text.parse_math": False,
}
#: matplotlib's settings belong to the process; one plot at a time changes them.
_drawing = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: `x` and `y` are equally long."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One mark of a scatter plot; `size` is a quantity whose share of the largest becomes the mark's area."""

    label: str
    x: float
    y: float
    group: str = ""
    size: float | None = None
    #: Drawn with a ring, and in front.
    highlight: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot that is drawn when it is asked for."""

    title: str
    width_in: float
    height_in: float
    #: Draws on matplotlib's Axes.
    draw: Callable[[Any], None]

    def svg(self, *, name: str = "") -> str:
        """Return one `<svg>` element, as it stands in a file or inside a page.

        Its ids begin with a digest of the plot and of `name`: give names where one page shows one plot twice.
        """
        with _settings(), io.BytesIO() as stream:
            from matplotlib.backends.backend_svg import FigureCanvasSVG

            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            canvas: Any = FigureCanvasSVG(self._figure())
            canvas.print_svg(stream, metadata=nothing)
            return _adapted(stream.getvalue().decode(), self.title, name)

    def png(self) -> bytes:
        """Return the plot as a PNG on white, 160 dots an inch."""
        with _settings(), io.BytesIO() as stream:
            from matplotlib.backends.backend_agg import FigureCanvasAgg

            figure = self._figure()
            figure.set_facecolor("white")
            figure.set_dpi(_PNG_DPI)
            canvas: Any = FigureCanvasAgg(figure)
            canvas.print_png(stream, metadata={"Software": None})
            return stream.getvalue()

    def save(self, path: Path) -> None:
        """Write `path`, whole or not at all, in the format that its suffix names.

        Raises:
            UsageError: neither .svg nor .png.
            InputError: it can't be written.

        """
        check_suffix(path)
        deliver(self.svg() + "\n" if path.suffix.lower() == ".svg" else self.png(), path)

    def _figure(self) -> Figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width_in, self.height_in), layout="constrained")
        # Whatever is written in the end, words are measured on this one.
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(cut(self.title, _TITLE_LENGTH), pad=10)
        self.draw(axes)
        return figure


def check_suffix(path: Path) -> None:
    """Find out before long work whether a plot can be saved under that name. Raises UsageError."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: plots are written as {' or '.join(SUFFIXES)}")


def bars(
    *,
    labels: Sequence[str],
    values: Sequence[float],
    title: str,
    value_label: str,
    highlight: Collection[int] = (),
    horizontal: bool = True,
    log: bool = False,
) -> Plot:
    """Return a bar for each value, the first at the top (or left); those numbered in `highlight` in another colour."""
    pairs = [
        (label, value, number in highlight)
        for number, (label, value) in enumerate(zip(labels, values, strict=True))
        if math.isfinite(value) and (value > 0 or not log)
    ]
    names = [cut(label, LABEL_LENGTH) for label, _, _ in pairs]
    figures = [value for _, value, _ in pairs]
    colours = [COLOURS[1] if marked else COLOURS[0] for _, _, marked in pairs]
    hatches = ["///" if marked else "" for _, _, marked in pairs]

    def draw(axes: Axes) -> None:
        if not pairs:
            draw_nothing(axes)
            return
        places = range(len(pairs))
        if horizontal:
            axes.barh(places, figures, color=colours, hatch=hatches, edgecolor=INK, linewidth=0, height=0.72, log=log)
            axes.set_yticks(places, names)
            axes.invert_yaxis()
            axes.set_ylim(len(pairs) - 0.4, -0.6)
            axes.set_xlabel(value_label)
            axes.grid(visible=False, axis="y")
        else:
            axes.bar(places, figures, color=colours, hatch=hatches, edgecolor=INK, linewidth=0, width=0.72, log=log)
            crowded = len(pairs) > _SIDE_BY_SIDE
            axes.set_xticks(places, names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
            axes.set_ylabel(value_label)
            axes.grid(visible=False, axis="x")

    height = min(_HEAD_HEIGHT + _BAR_HEIGHT * max(len(pairs), 2), _MOST_BARS_HEIGHT) if horizontal else HEIGHT
    return Plot(title=title, width_in=WIDTH, height_in=height, draw=draw)


def lines(
    *,
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
) -> Plot:
    """Return a line for each series; a legend below when there are several."""

    def draw(axes: Axes) -> None:
        scale_axes(axes, x_label, y_label, log_x=log_x, log_y=log_y)
        for number, each in enumerate(series):
            axes.plot(
                each.x,
                [value if math.isfinite(value) else math.nan for value in each.y],
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)] if len(each.x) <= _MANY * 3 else "",
                markersize=4.5,
                linewidth=1.6,
                label=cut(each.name, LABEL_LENGTH),
            )
        if not any(each.x for each in series):
            draw_nothing(axes)
        elif len(series) > 1:
            put_legend(axes)

    return Plot(title=title, width_in=WIDTH, height_in=HEIGHT + 0.2 * (len(series) // 2), draw=draw)


def scatter(
    *,
    points: Sequence[Point],
    title: str,
    x_label: str,
    y_label: str,
    front: Sequence[tuple[float, float]] = (),
    front_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> Plot:
    """Return named points, coloured and shaped by group.

    Args:
        points: what to show; those that aren't finite (or positive, on a log scale) are left out.
        title: above the plot.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        front: a line through the best points, from left to right, drawn as steps.
        front_label: its words in the legend.
        log_x: x on a logarithmic scale.
        log_y: y on a logarithmic scale.

    """
    shown = [
        point
        for point in points
        if math.isfinite(point.x)
        and math.isfinite(point.y)
        and (point.x > 0 or not log_x)
        and (point.y > 0 or not log_y)
    ]
    groups = list(dict.fromkeys(point.group for point in shown))
    largest = max((point.size for point in shown if point.size), default=0.0)

    def area(point: Point) -> float:
        return 44.0 if not largest or point.size is None else 22.0 + 300.0 * point.size / largest

    def draw(axes: Axes) -> None:
        scale_axes(axes, x_label, y_label, log_x=log_x, log_y=log_y)
        if not shown:
            draw_nothing(axes)
            return
        axes.margins(0.14, 0.16)
        if front:
            xs, ys = zip(*front, strict=True)
            axes.plot(
                xs, ys, drawstyle="steps-post", color=INK, alpha=0.55, linewidth=1.1, label=front_label, zorder=1.5
            )
        for number, group in enumerate(groups):
            members = [point for point in shown if point.group == group]
            axes.scatter(
                [point.x for point in members],
                [point.y for point in members],
                s=[area(point) for point in members],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                alpha=0.85,
                edgecolors=[INK if point.highlight else "none" for point in members],
                linewidths=1.4,
                label=cut(group, LABEL_LENGTH),
                zorder=2,
            )
        if len(groups) > 1 or front_label:
            put_legend(axes, area=44.0)
        _name_points(axes, shown)

    return Plot(title=title, width_in=WIDTH, height_in=HEIGHT + 0.2 * (len(groups) // 2), draw=draw)


def histogram(
    *,
    values: Sequence[float],
    title: str,
    value_label: str,
    bins: int = 40,
    log_count: bool = False,
    marks: Sequence[tuple[str, float]] = (),
) -> Plot:
    """Return how often values occur; `marks` are named vertical lines, as the ends of a quantized range."""
    finite = [float(value) for value in values if math.isfinite(value)]

    def draw(axes: Axes) -> None:
        axes.set_xlabel(value_label)
        axes.set_ylabel("count")
        if not finite:
            draw_nothing(axes)
            return
        axes.hist(finite, bins=bins, color=COLOURS[0], log=log_count)
        for number, (name, place) in enumerate(marks, 1):
            style = DASHES[number % len(DASHES)]
            axes.axvline(place, color=COLOURS[number % len(COLOURS)], linestyle=style, linewidth=1.4, label=name)
        if marks:
            put_legend(axes)

    return Plot(title=title, width_in=WIDTH, height_in=HEIGHT, draw=draw)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Draw with our settings alone, whatever the process or the user's matplotlibrc says."""
    # It speaks of the cache of fonts it builds on its first day.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl

    with _drawing, mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = mpl.rcParams
        settings.update(_RC)
        yield


def scale_axes(axes: Axes, x_label: str, y_label: str, *, log_x: bool = False, log_y: bool = False) -> None:
    """Name both axes, and count in 1, 2, 5 where they are logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    for axis, wanted in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        if wanted:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            # 0.5 and 20, not powers that a reader has to work out.
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axis.set_minor_formatter(NullFormatter())


def put_legend(axes: Axes, *, area: float | None = None) -> None:
    """Put the legend below, where it hides nothing."""
    figure = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    shown = [(handle, label) for handle, label in zip(handles, labels, strict=True) if label]
    if not shown:
        return
    legend = figure.legend(
        [handle for handle, _ in shown], [label for _, label in shown], loc="outside lower center", ncols=2
    )
    if area is not None:
        from matplotlib.collections import PathCollection

        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([area])


def draw_nothing(axes: Axes) -> None:
    """Say on the axes that there is nothing to show."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, ha="center", va="center", style="italic")


#: Where a name may stand beside its point: the offset in points, and how the text is aligned there.
_PLACES = (
    (7, 0, "left", "center"),
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
    (-7, 0, "right", "center"),
    (6, 8, "left", "bottom"),
    (6, -8, "left", "top"),
    (-6, 8, "right", "bottom"),
    (-6, -8, "right", "top"),
    (9, 18, "left", "bottom"),
    (9, -18, "left", "top"),
)


def _name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Write each point's name in the first place beside it that is free; where none is, the name is left out."""
    figure: Figure = axes.figure  # type: ignore[assignment]
    figure.draw_without_rendering()
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    taken = [_around(*axes.transData.transform((point.x, point.y)), half=4.0 * figure.dpi / 72) for point in points]
    for point in points:
        if not point.label:
            continue
        for x, y, horizontal, vertical in _PLACES:
            text: Annotation = axes.annotate(
                cut(point.label, 24),
                (point.x, point.y),
                xytext=(x, y),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=8,
                zorder=3,
            )
            box = text.get_window_extent(renderer)
            edges = (box.x0, box.y0, box.x1, box.y1)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
            if inside and not any(_overlap(edges, other) for other in taken):
                taken.append(edges)
                text.set_in_layout(False)
                break
            text.remove()


_Box = tuple[float, float, float, float]


def _around(x: float, y: float, *, half: float) -> _Box:
    return x - half, y - half, x + half, y + half


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def cut(text: str, length: int) -> str:
    """Shorten in the middle: names of tensors differ at both ends. Control characters become visible."""
    shown = "".join(character if character.isprintable() else "�" for character in text)
    if len(shown) <= length:
        return shown
    tail = (length - 1) // 2
    return f"{shown[: length - 1 - tail]}…{shown[-tail:]}"


def _adapted(document: str, title: str, name: str) -> str:
    """Return matplotlib's SVG document as one element that takes size and colour from where it stands."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', body)
    assert view is not None  # noqa: S101 - matplotlib always writes one
    body = body[body.index(">") + 1 : body.rindex("</svg>")]
    body = body.replace(INK, "currentColor")
    body = re.sub(r"(font:[^;\"]*?\d+(?:\.\d+)?px) [^;\"]*", r"\1 system-ui, sans-serif", body)
    used = set(re.findall(r"url\(#([^)]+)\)", body)) | set(re.findall(r'href="#([^"]+)"', body))
    # Nobody asks for the other ids, and a page may hold several plots.
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    mark = hashlib.sha256(f"{name}\0{title}\0{body}".encode()).hexdigest()[:10]
    body = re.sub(r'( id="|url\(#|href="#)', rf"\1p{mark}-", body)
    words = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="tfl-plot" '
        f'{view[0]} role="img" aria-label="{words}"><title>{words}</title>{_STYLE}{body}</svg>'
    )
