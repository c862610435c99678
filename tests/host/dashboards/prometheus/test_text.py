"""What is written is what prometheus-client writes, in both formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_read
from prometheus_client.parser import text_string_to_metric_families as prometheus_read
from prometheus_client.registry import Collector

from tests.host.dashboards.prometheus import serving
from tests.host.dashboards.prometheus.test_served import talkative
from tflotilla.host.dashboards.exposition import catalogue, text
from tflotilla.host.dashboards.exposition.catalogue import Distribution, Family, Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Theirs(Collector):
    """Our families as prometheus-client has them."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            name, meaning, labels = family.metric.name, family.metric.meaning, family.metric.labels
            match family.metric.kind:
                case "histogram":
                    histogram = HistogramMetricFamily(name, meaning, labels=labels)
                    for each in family.distributions:
                        bounds = [*map(str, each.bounds), "+Inf"]
                        sums = [float(sum(each.counts[: n + 1])) for n in range(len(each.counts))]
                        histogram.add_metric(each.labels, list(zip(bounds, sums, strict=True)), each.total)
                    yield histogram
                case "info":
                    info = InfoMetricFamily(name, meaning)
                    for figure in family.figures:
                        info.add_metric([], dict([*zip(labels, figure.labels, strict=True), *figure.more]))
                    yield info
                case "counter" | "gauge" as kind:
                    family_of = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                    plain = family_of(name, meaning, labels=labels)
                    for figure in family.figures:
                        plain.add_metric(figure.labels, figure.value)
                    yield plain


NASTY = Family(
    metric=catalogue.PREDICTED,
    figures=(
        Figure(labels=("m", "1", 'a "quoted" \\ back\nslash'), value=3),
        Figure(labels=("", "", "é…漢"), value=1e20),
        Figure(labels=("m", "2", "tiny"), value=1.5e-9),
    ),
)
BARE = Family(metric=catalogue.CONNECTED, figures=(Figure(labels=(), value=1),))
EMPTY = Family(metric=catalogue.LATENCY)
ENDLESS = Family(metric=catalogue.TEMPERATURE, figures=(Figure(labels=("pi-1",), value=float("inf")),))
SPREAD = Family(
    metric=catalogue.SCORE,
    distributions=(
        Distribution(labels=("m", "1"), bounds=(1e-05, 0.1, 10.0), counts=(1, 0, 2, 4), total=0.30000000000000004),
    ),
)
ALL = [NASTY, BARE, EMPTY, SPREAD]


def samples(families: Iterable[Metric]) -> set[tuple[str, str, tuple[tuple[str, str], ...], float]]:
    return {
        (family.type, sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    }


def read_openmetrics(written: str) -> set[tuple[str, str, tuple[tuple[str, str], ...], float]]:
    return samples(openmetrics_read(written))  # type: ignore[no-untyped-call]


def heads(written: str) -> list[str]:
    return [line for line in written.splitlines() if line.startswith("#")]


@pytest.fixture
def families(tmp_path: Path) -> list[Family]:
    """Give everything that a fleet shows."""
    fleet = talkative(tmp_path)
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        return bridge.families()


def test_prometheus_s_text_says_what_the_library_says(families: list[Family]) -> None:
    for shown in (families, [*ALL, ENDLESS]):
        ours = text.prometheus(shown)
        theirs = exposition.generate_latest(Theirs(shown)).decode()

        assert samples(prometheus_read(theirs)) == samples(prometheus_read(ours))
        assert heads(theirs) == heads(ours)


def test_openmetrics_says_what_the_library_says(families: list[Family]) -> None:
    for shown in (families, ALL):
        ours = text.openmetrics(shown)
        theirs = openmetrics.generate_latest(Theirs(shown)).decode()  # type: ignore[no-untyped-call]

        assert read_openmetrics(theirs) == read_openmetrics(ours)
        assert heads(theirs) == heads(ours)
