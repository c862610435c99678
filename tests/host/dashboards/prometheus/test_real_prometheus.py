"""A real Prometheus scrapes the bridge, and its answers are right."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import brokers
from tests.host.dashboards.prometheus import real, said, serving, shipped
from tests.host.dashboards.prometheus.test_served import talkative
from tflotilla.host.dashboards.exposition.catalogue import CATALOGUE
from tflotilla.host.dashboards.exposition.sums import BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.host.dashboards.bridges.prometheus import PrometheusBridge

pytestmark = [pytest.mark.dashboards]
#: Boards of quite different latencies, whose p99 is no average of the boards' p99s.
_MEANS = {("pi-1", 13.0), ("pi-2", 16.0)}


def latencies(seed: int, mean: float) -> list[int]:
    return [int(each) for each in np.random.default_rng(seed).lognormal(mean, 0.3, 400)]


@pytest.fixture
def fleet(tmp_path: Path) -> said.Said:
    return talkative(tmp_path)


@pytest.fixture
def bridge(fleet: said.Said) -> Iterator[PrometheusBridge]:
    with serving.bridge(fleet) as opened:
        opened.step(fleet.news())
        yield opened


def test_a_quantile_over_boards_is_within_the_bucket_of_the_raw_one(
    tmp_path: Path, fleet: said.Said, bridge: PrometheusBridge
) -> None:
    """Windows go on while it scrapes; `rate` sees only what came between its first scrape and its last."""
    p99 = 'histogram_quantile(0.99, sum by (le) (rate(tflotilla_latency_seconds_bucket{stage="total"}[1m])))'
    with real.prometheus(tmp_path / "prometheus", f"127.0.0.1:{bridge.port}") as prometheus:
        brokers.until(lambda: bool(prometheus.query("tflotilla_board_online")), "a first scrape")
        raw: list[int] = []
        for seed in range(20):
            for board, mean in sorted(_MEANS):
                values = latencies(seed, mean)
                raw += values
                fleet.say(board, said.window(values))
        bridge.step(fleet.news())
        all_of_them = f"sum(tflotilla_inferences_total) == {len(raw) + 200}"
        brokers.until(lambda: bool(prometheus.query(all_of_them)), "all windows to be scraped")
        brokers.until(lambda: bool(prometheus.query(p99)), "a quantile")
        ((_, answered),) = prometheus.query(p99)

    exact = float(np.percentile(np.asarray(raw), 99, method="inverted_cdf")) / 1e9
    (low, high) = next(pair for pair in itertools.pairwise(BOUNDS_S) if pair[0] < exact <= pair[1])
    assert low <= answered <= high


def test_every_metric_is_scraped_and_everything_shipped_answers(
    tmp_path: Path, fleet: said.Said, bridge: PrometheusBridge
) -> None:
    with real.prometheus(tmp_path / "prometheus", f"127.0.0.1:{bridge.port}") as prometheus:
        brokers.until(lambda: len(prometheus.query("up == 1")) == 1, "a first scrape")
        hurt = said.window([4_000_000] * 9, errors=1, dropped=1, unreadable=1, low_confidence=3, throttled=True)
        for _ in range(3):
            before = prometheus.query("count_over_time(tflotilla_bridge_connected[5m])")
            fleet.say("pi-1", hurt)
            bridge.step(fleet.news())
            brokers.until(
                lambda before=before: prometheus.query("count_over_time(tflotilla_bridge_connected[5m])") != before,  # type: ignore[misc]
                "another scrape",
            )
        names = set(prometheus.ask("label/__name__/values"))
        answers = {title: prometheus.query(query) for title, query in shipped.panel_queries()}
        alerts = prometheus.ask("rules")["groups"]

    assert {name for metric in CATALOGUE for name in metric.samples} <= names
    assert set() == {title for title, answer in answers.items() if not answer} - {"Reports under way"}
    assert set() == {rule["name"] for group in alerts for rule in group["rules"] if rule["health"] == "err"}
