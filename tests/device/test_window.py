"""The text of a window is what the contract's own serializer would write."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tflotilla.device import window
from tflotilla.device.window import STAGES, Window
from tflotilla.shared import sketches
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import Candidate, LabelCount, Metrics, Prediction, Predictions

_TOP = (Candidate(label="seven", index=7, score=0.996094), Candidate(label="one", index=1, score=0.0))
_TAKEN = (1, 20, 300, 4000, 4321)


def _read(kind: type[Any], body: bytes) -> Any:  # noqa: ANN401 - whatever was asked for
    return codec.decode(kind, codec.parse_json(body, "body"), "body")


@pytest.mark.parametrize(
    ("item", "top"),
    [
        ("0-zero.png", _TOP),
        ("", ()),
        ('quotes " and \\ and \n and ☃', (Candidate(label='a "label"\t☃', index=0, score=1e-07),)),
        ("boxes", (Candidate(label="cat", index=16, score=0.5, box=(0.0, 0.25, 1.0, 0.123456)),)),
    ],
    ids=["plain", "empty", "strange", "detection"],
)
def test_the_fast_text_is_the_canonical_one(item: str, top: tuple[Candidate, ...]) -> None:
    prediction = Prediction(item=item, time=1700000000.25, stages_ns=dict(zip(STAGES, _TAKEN, strict=True)), top=top)

    assert codec.canonical_json(prediction).decode() == window.result_text(item, 1700000000.25, _TAKEN, top)


def test_results_are_given_once() -> None:
    one = Window(with_results=True)
    one.add("a", 1.5, _TAKEN, _TOP)
    one.add("b", 2.5, _TAKEN, _TOP)

    assert one.results == 2
    assert [result.item for result in _read(Predictions, one.take_results()).results] == ["a", "b"]
    assert one.results == 0
    assert one.take_results() == b'{"results":[]}'


def test_metrics_summarize_the_whole_window() -> None:
    one = Window(with_results=False)
    for number in range(100):
        one.add("x", 1.0, (number, 0, 2 * number, 0, 3 * number), _TOP if number < 75 else _TOP[1:])
    one.errors = 2

    metrics = _read(Metrics, one.metrics(window_ns=1_500_000_000, dropped=4, rss_bytes=5, temperature_c=48.5))

    assert (metrics.window_s, metrics.count, metrics.errors, metrics.dropped) == (1.5, 100, 2, 4)
    assert (metrics.rss_bytes, metrics.temperature_c) == (5, 48.5)
    assert tuple(metrics.stages) == tuple(sorted(STAGES))
    assert (metrics.stages["invoke"].p50_ns, metrics.stages["invoke"].max_ns) == (98, 198)
    assert metrics.stages["total"].p99_ns == 294
    assert [(label.label, label.count) for label in metrics.labels] == [("seven", 75), ("one", 25)]


def test_scores_of_the_winners_are_counted_in_tenths() -> None:
    one = Window(with_results=False)
    for score in (0.0, 0.099999, 0.1, 0.5, 0.55, 0.899999, 0.9, 1.0):
        one.add("x", 1.0, _TAKEN, (Candidate(label="a", index=0, score=score), *_TOP))
    # No probability: a model that ends in logits.
    one.add("x", 1.0, _TAKEN, (Candidate(label="a", index=0, score=7.25),))
    one.add("nothing found", 1.0, _TAKEN, ())

    metrics = _read(Metrics, one.metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None))

    assert metrics.scores == (2, 1, 0, 0, 0, 2, 0, 0, 1, 2)


def test_every_stage_has_a_sketch_of_its_latencies() -> None:
    one, taken = Window(with_results=False), []
    for number in range(500):
        taken.append((number, 0, 2 * number, 7, 3 * number + 7))
        one.add("x", 1.0, taken[-1], _TOP)

    metrics = _read(Metrics, one.metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None))

    columns = np.array(taken).T
    assert {stage: latency.sketch for stage, latency in metrics.stages.items()} == {
        stage: sketches.of(column) for stage, column in zip(STAGES, columns, strict=True)
    }


def test_labels_have_the_deviation_of_their_scores() -> None:
    one = Window(with_results=False)
    for score in (0.5, 0.75, 1.0):
        one.add("x", 1.0, _TAKEN, (Candidate(label="a", index=0, score=score),))

    metrics = _read(Metrics, one.metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None))

    assert metrics.labels == (LabelCount(label="a", count=3, mean_score=0.75, std_score=0.204124),)


def test_winners_below_the_bound_are_counted_however_their_scores_are_meant() -> None:
    one = Window(with_results=False, low_confidence_below=0.6)
    for score in (0.1, 0.599999, 0.6, 0.9, -3.0, 12.0):
        one.add("x", 1.0, _TAKEN, (Candidate(label="a", index=0, score=score),))
    one.add("nothing found", 1.0, _TAKEN, ())

    metrics = _read(Metrics, one.metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None, throttled=True))

    assert (metrics.low_confidence, metrics.throttled) == (3, True)


@pytest.mark.parametrize("with_results", [True, False])
def test_a_sample_of_the_answers_comes_with_the_metrics(*, with_results: bool) -> None:
    one = Window(with_results=with_results, sample=3, uniform=random.Random(5).random)  # noqa: S311 - the same each time
    for number in range(200):
        one.add(f"{number}", float(number), (*_TAKEN[:4], number), _TOP)

    sample = _read(Metrics, one.metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None)).sample

    assert len(sample) == 3
    assert [int(result.item) for result in sample] == [int(result.time) for result in sample]
    assert sorted(sample, key=lambda result: result.time) == list(sample)
    assert all(
        dict(result.stages_ns) == dict(zip(STAGES, (*_TAKEN[:4], int(result.time)), strict=True)) for result in sample
    )
    assert all(result.top == _TOP for result in sample)


def test_a_window_says_little_when_little_happened() -> None:
    """Ten inferences, as a camera makes them in a second: what is told of them fits into two packets."""
    one = Window(with_results=False)
    for number in range(10):
        one.add("x", 1.0, tuple(stage + 997 * number for stage in (210_000, 29_836, 36_407, 5_410, 281_653)), _TOP)  # type: ignore[arg-type]

    body = one.metrics(window_ns=1_000_201_332, dropped=0, rss_bytes=54_480_896, temperature_c=48.7)

    assert len(body) < 1800


def test_an_empty_window_has_no_latencies() -> None:
    metrics = _read(Metrics, Window(with_results=True).metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None))

    assert (metrics.count, dict(metrics.stages), metrics.labels, metrics.scores) == (0, {}, (), (0,) * 10)


def test_a_batch_is_ready_before_a_message_grows_large() -> None:
    one = Window(with_results=True)
    added = 0
    while not one.batch_ready:
        one.add("item", 1.0, _TAKEN, _TOP)
        added += 1

    assert added == one.results == one.count
    assert 10_000 < len(one.take_results()) < 100_000
    assert not one.batch_ready


def test_a_window_at_full_speed_is_closed_before_it_grows_large() -> None:
    one = Window(with_results=False)
    for _ in range(window.FULL_AT):
        assert not one.full
        one.add("item", 1.0, _TAKEN, ())

    assert one.full
