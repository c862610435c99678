"""What a loss is, for each metric, by numbers that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tflotilla.host.models import metrics
from tflotilla.host.models.metrics import Metric, drop


def test_accuracy_and_map_drop_by_their_difference() -> None:
    assert drop(Metric.ACCURACY, 0.99, 0.97) == pytest.approx(0.02)
    assert drop(Metric.MAP, 0.5, 0.75) == pytest.approx(-0.25)


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.MAP])
def test_losing_exactly_what_is_allowed_is_not_losing_more(metric: Metric) -> None:
    """2 of 200 samples lost once exceeded `--max-drop 0.01`, for 0.675 - 0.665 is 0.010000000000000009."""
    samples = 200
    for right in range(2, samples + 1):
        assert drop(metric, right / samples, (right - 2) / samples) == 0.01


def test_cosine_drops_from_one_and_sqnr_by_its_noise() -> None:
    assert drop(Metric.COSINE, 1.0, 0.995) == pytest.approx(0.005)
    assert drop(Metric.SQNR, metrics.BEST_SQNR_DB, 20.0) == pytest.approx(0.01)
    assert drop(Metric.SQNR, metrics.BEST_SQNR_DB, 0.0) == pytest.approx(1.0)
    assert drop(Metric.SQNR, metrics.BEST_SQNR_DB, metrics.BEST_SQNR_DB) == 0.0


def test_the_float_model_itself_loses_nothing_in_any_metric() -> None:
    for metric in Metric:
        own = metric.of_the_float_model if metric.of_the_float_model is not None else 0.7
        assert drop(metric, own, own) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([3.0, 4.0], [6.0, 8.0], 1.0),
        ([1.0, 0.0], [0.0, 5.0], 0.0),
        ([1.0, 2.0], [-1.0, -2.0], -1.0),
        ([1.0, 0.0], [1.0, 1.0], math.sqrt(0.5)),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([0.0, 0.0], [1.0, 0.0], 0.0),
        ([1.0, 2.0], [math.nan, 2.0], 0.0),
    ],
)
def test_cosine_is_that_of_the_angle(one: list[float], other: list[float], expected: float) -> None:
    assert metrics.cosine(np.array(one), np.array(other)) == pytest.approx(expected)


def test_sqnr_is_ten_decibels_per_power_of_ten_and_always_a_number() -> None:
    assert metrics.sqnr_db(100.0, 1.0) == pytest.approx(20.0)
    assert metrics.sqnr_db(1.0, 0.0) == metrics.BEST_SQNR_DB
    assert metrics.sqnr_db(0.0, 0.0) == metrics.BEST_SQNR_DB
    assert metrics.sqnr_db(0.0, 3.0) == 0.0
    assert metrics.sqnr_db(1.0, math.inf) == -metrics.BEST_SQNR_DB
    assert metrics.sqnr_db(1.0, math.nan) == -metrics.BEST_SQNR_DB
