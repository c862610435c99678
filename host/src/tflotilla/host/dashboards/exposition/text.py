"""Families as text: Prometheus's own (version 0.0.4), or OpenMetrics 1.0.0. Pure.

Written here because fleets are large and both threads of a bridge share one interpreter: a scrape of a thousand boards
is 100,000 lines, which cost 2.6 s with prometheus-client's writer and 0.25 s with this one. Tests hold it against that
writer, and its parsers.

What it does NOT do: exemplars, times, units, names in quotes: nothing here has them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tflotilla.host.dashboards.exposition.catalogue import Distribution, Family, Kind

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_INFINITE = "+Inf"


def prometheus(families: Iterable[Family]) -> str:
    """Return what Prometheus's text format is; samples are typed by their own names there."""
    lines: list[str] = []
    for family in families:
        name = family.metric.samples[0] if family.metric.kind != "histogram" else family.metric.name
        kind = "gauge" if family.metric.kind == "info" else family.metric.kind
        _write(lines, family, name, kind)
    return "".join(lines)


def openmetrics(families: Iterable[Family]) -> str:
    """Return what OpenMetrics is; its end is marked, so that half an answer is none."""
    lines: list[str] = []
    for family in families:
        _write(lines, family, family.metric.name, family.metric.kind)
    lines.append("# EOF\n")
    return "".join(lines)


def _write(lines: list[str], family: Family, name: str, kind: Kind) -> None:
    lines.append(f"# HELP {name} {family.metric.meaning}\n# TYPE {name} {kind}\n")
    for each in family.distributions:
        lines.extend(_histogram(family.metric.name, _pairs(family.metric.labels, each.labels), each))
    if family.figures:
        sample = family.metric.samples[0]
        for figure in family.figures:
            pairs = _pairs(family.metric.labels, figure.labels)
            if figure.more:
                more = _pairs(*zip(*figure.more, strict=True))
                pairs = f"{pairs},{more}"
            labelled = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{sample}{labelled} {_number(figure.value)}\n")


def _histogram(name: str, pairs: str, distribution: Distribution) -> Iterator[str]:
    start = f'{name}_bucket{{{pairs},le="' if pairs else f'{name}_bucket{{le="'
    sofar = 0
    for bound, count in zip(distribution.bounds, distribution.counts, strict=False):
        sofar += count
        yield f'{start}{bound!r}"}} {sofar}\n'
    sofar += distribution.counts[-1]
    yield f'{start}{_INFINITE}"}} {sofar}\n'
    labelled = f"{{{pairs}}}" if pairs else ""
    yield f"{name}_count{labelled} {sofar}\n{name}_sum{labelled} {_number(distribution.total)}\n"


def _pairs(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in zip(names, values, strict=True))


def _number(value: float) -> str:
    exact = float(value)
    if exact.is_integer():
        return str(int(exact))
    return repr(exact) if math.isfinite(exact) else {math.inf: "+Inf", -math.inf: "-Inf"}.get(exact, "NaN")
