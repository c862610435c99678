"""Renders a report: one HTML page that needs nothing else, Markdown, or JSON. Pure: the same values, the same bytes.

The page has no script and loads nothing; plots are SVG in the page, pictures are data URIs. Everything that a plot
shows stands in a table too. What it does NOT do: measure.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import plots
from tflotilla.host.pages import jinja
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.models.report.contents import Figures, LayerNoise, Report, Variant

#: Suffix of the file → how it is rendered; see `renderer`.
SUFFIXES = (".html", ".md", ".json")
_KIB = 1024
_MS = 1e6
#: Metrics that are shares of one; an SQNR is in dB.
_SHARES = ("accuracy", "map", "cosine")
_NAMES = {"accuracy": "accuracy", "map": "mAP@0.5", "cosine": "cosine", "sqnr": "SQNR, dB"}
_LOUD_SATURATION = 0.001


def renderer(path: Path) -> Callable[[Report], str]:
    """Return the function that renders for a file's suffix. Raises UsageError."""
    known: dict[str, Callable[[Report], str]] = {".html": html, ".md": markdown, ".json": as_json}
    if path.suffix.lower() not in known:
        raise UsageError(f"{path}: a report is written as {', '.join(SUFFIXES)}")
    return known[path.suffix.lower()]


def as_json(report: Report) -> str:
    """Render the values themselves."""
    return json.dumps(codec.encode(report), indent=2, sort_keys=True, allow_nan=False) + "\n"


def html(report: Report) -> str:
    """Render the page."""
    return _render("report.html.j2", report)


def markdown(report: Report) -> str:
    """Render the tables and notes; plots and pictures stay with the page."""
    return _render("report.md.j2", report)


def _render(template: str, report: Report) -> str:
    environment = jinja.environment(Path(__file__).parent / "templates")
    environment.filters |= {
        "size": size,
        "ms": milliseconds,
        "share": _share,
        "value": value,
        "gain": gain,
        "cell": _cell,
    }
    rows = [(variant, figure) for variant in report.variants for figure in variant.figures]
    columns = list(dict.fromkeys((fit.runtime, fit.version) for variant in report.variants for fit in variant.fits))
    page = template.endswith(".html.j2")
    return environment.get_template(template).render(
        report=report,
        rows=rows,
        judged=[row for row in rows if row[1].value is not None],
        columns=columns,
        metric_names=_NAMES,
        pareto=[plot.svg(name=str(n)) for n, plot in enumerate(pareto_plots(report))] if page else [],
        noise={v.name: noise_plot(v).svg(name=v.name) for v in report.variants if v.layers} if page else {},
        facts=facts(report),
    )


def facts(report: Report) -> list[str]:
    """Return what a reader wants to know first, in sentences. Pure."""
    found = []
    smallest = min(report.variants, key=lambda variant: variant.size_bytes)
    largest = max(report.variants, key=lambda variant: variant.size_bytes)
    if smallest is not largest:
        ratio = largest.size_bytes / smallest.size_bytes
        found.append(
            f"Smallest: {smallest.name}, {size(smallest.size_bytes)}, {ratio:.1f} times smaller than {largest.name}."
        )
    timed = [(f.p50_ns, v, f) for v in report.variants for f in v.figures if f.p50_ns is not None]
    if timed:
        nanoseconds, variant, figure = min(timed, key=lambda row: row[0])
        found.append(f"Fastest here: {variant.name} on {figure.runtime}, p50 {milliseconds(nanoseconds)} ms.")
    lost = [(f.gained, v, f) for v in report.variants for f in v.figures if f.gained is not None and not v.is_reference]
    if lost:
        gained, variant, figure = min(lost, key=lambda row: row[0])
        words = (
            "None loses anything against float"
            if gained >= 0
            else (
                f"Furthest below float: {variant.name} on {figure.runtime}, {gain(gained, figure.metric)} "
                f"{_NAMES.get(figure.metric or '', '')}"
            )
        )
        found.append(words + ".")
    nowhere = [variant.name for variant in report.variants if variant.fits and not any(fit.ok for fit in variant.fits)]
    if nowhere:
        found.append(f"No known runtime runs {', '.join(nowhere)}.")
    return found


def pareto_plots(report: Report) -> list[plots.Plot]:
    """Return quality against latency and against size, with the front of what nothing else beats in both. Pure."""
    rows = [(variant, figure) for variant in report.variants for figure in variant.figures if figure.value is not None]
    metrics = {figure.metric for _, figure in rows}
    if len(metrics) != 1:
        return []  # accuracies and cosines don't belong on one axis
    label = _NAMES.get(rows[0][1].metric or "", "")
    return [
        _pareto(
            [(v, f, f.p50_ns / _MS) for v, f in rows if f.p50_ns is not None],
            title=f"{label} against latency (area: size)",
            x_label="p50 of an invoke here, ms",
            y_label=label,
        ),
        _pareto(
            [(v, f, v.size_bytes / _KIB) for v, f in rows],
            title=f"{label} against size",
            x_label="size, KiB",
            y_label=label,
        ),
    ]


def _pareto(rows: Sequence[tuple[Variant, Figures, float]], *, title: str, x_label: str, y_label: str) -> plots.Plot:
    variants = [variant for variant, _, _ in rows]
    several = len({variant.name for variant in variants}) != len({variant.scheme for variant in variants})
    names = {variant.name: variant.name if several else variant.scheme.value for variant in variants}
    best = -math.inf
    front = []
    for _, figure, x in sorted(rows, key=lambda row: (row[2], -(row[1].value or 0.0))):
        if (figure.value or 0.0) > best:
            best = figure.value or 0.0
            front.append((x, best))
    return plots.scatter(
        points=[
            plots.Point(
                label=names[variant.name],
                x=x,
                y=figure.value or 0.0,
                group=figure.runtime,
                size=variant.size_bytes,
                highlight=(x, figure.value) in front,
            )
            for variant, figure, x in rows
        ],
        title=title,
        x_label=x_label,
        y_label=y_label,
        front=front,
        front_label="nothing is better in both",
        log_x=True,
    )


def noise_plot(variant: Variant) -> plots.Plot:
    """Return a bar for each of a variant's worst layers. Pure."""
    return plots.bars(
        # A fused operator's tensor has the names of all its parts; the first is the outermost.
        labels=[f"{layer.layer} {layer.tensor.split(';')[0]}" for layer in variant.layers],
        values=[noise_percent(layer) for layer in variant.layers],
        title="Noise per layer",
        value_label="error, % of signal (hatched: cut off)",
        highlight=[n for n, layer in enumerate(variant.layers) if layer.saturated_share > _LOUD_SATURATION],
    )


def noise_percent(layer: LayerNoise) -> float:
    """Return the RMS of a layer's error in percent of the RMS of its values."""
    return 100 * float(10 ** (-layer.sqnr_db / 20))


def size(size_bytes: int) -> str:
    """Spell a size."""
    return f"{size_bytes / _KIB:,.1f} KiB" if size_bytes < _KIB * _KIB else f"{size_bytes / _KIB / _KIB:,.2f} MiB"


def milliseconds(nanoseconds: int | None) -> str:
    """Spell a latency in ms."""
    return "" if nanoseconds is None else f"{nanoseconds / _MS:,.3f}"


def value(figure: Figures) -> str:
    """Spell what a variant was judged by."""
    if figure.value is None:
        return ""
    if figure.metric == "accuracy":
        return f"{figure.value:.2%}"
    return f"{figure.value:.4f}" if figure.metric in _SHARES else f"{figure.value:.1f}"


def gain(gained: float | None, metric: str | None) -> str:
    """Spell a distance from float: points of accuracy, else in the metric's own unit."""
    if gained is None:
        return ""
    return f"{gained * 100:+.2f} points" if metric == "accuracy" else f"{gained:+.4f}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _cell(text: Any) -> str:  # noqa: ANN401 - what a template hands over
    """Keep a text in its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
