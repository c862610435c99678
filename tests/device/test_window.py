"""The text of a window is what the contract's own serializer would write."""

from __future__ import annotations

from typing import Any

import pytest

from tflotilla.device import window
from tflotilla.device.window import STAGES, Window
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import Candidate, Metrics, Prediction, Predictions

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
