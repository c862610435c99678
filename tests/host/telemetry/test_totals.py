"""Sums of windows stay bounded, whatever boards call things."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.host.dashboards.web.test_tiles import METRICS
from tflotilla.host.telemetry.totals import MOST_LABELS, OTHER_LABELS, Totals
from tflotilla.shared import sketches
from tflotilla.shared.contract.messages import LabelCount, StageLatency

_LATENCY = StageLatency(
    count=1, mean_ns=5.0, min_ns=5, p50_ns=5, p90_ns=5, p99_ns=5, max_ns=5, sketch=sketches.of(np.array([5]))
)


def test_names_that_are_made_up_anew_each_time_fill_no_memory() -> None:
    summed = Totals()
    for number in range(1500):
        named = LabelCount(label=f"{number}-" + "x" * 5000, count=1, mean_score=0.5)
        summed.add(
            dataclasses.replace(METRICS, labels=(named,), stages={f"stage-{number}": _LATENCY, "total": _LATENCY})
        )
    over_the_fleet = Totals()
    over_the_fleet.merge(summed)

    for each in (summed, over_the_fleet):
        assert (MOST_LABELS + 1, 64) == (len(each.labels), len(each.stages))
        assert 500 == each.labels[OTHER_LABELS][0]
        assert 1000 == max(len(label) for label in each.labels)
        assert 1500 == each.stages["total"].count
