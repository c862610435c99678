"""What messages add up to."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tflotilla.host.rollouts import evidence
from tflotilla.host.rollouts.evidence import LABELS, OTHER, WINDOWS, Evidence, Total
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import Availability, Event, LabelCount, Message, Metrics, StageLatency

#: What a careless reader could let in where a whole number belongs.
NAN: Any = math.nan
SCORES = (0, 0, 0, 0, 0, 0, 0, 0, 1, 9)


def stage(count: int = 10, p50: int = 1000, p90: int = 2000, p99: int = 3000) -> StageLatency:
    return StageLatency(count=count, mean_ns=1.0, min_ns=1, p50_ns=p50, p90_ns=p90, p99_ns=p99, max_ns=9000)


def metrics(**fields: Any) -> Metrics:  # noqa: ANN401 - of Metrics
    whole: dict[str, Any] = {
        "window_s": 1.0,
        "count": 10,
        "errors": 0,
        "dropped": 0,
        "stages": {"total": stage()},
        "labels": (LabelCount(label="cat", count=10, mean_score=0.9),),
        "rss_bytes": 50_000_000,
        "temperature_c": 50.0,
        "scores": SCORES,
    }
    return Metrics(**(whole | fields))


def fold(*bodies: object, before: Evidence | None = None) -> Evidence:
    found = before
    for at, body in enumerate(bodies, 100):
        message: Message[Any] = Message(board="pi-1", boot="b", seq=at, time=0.0, bundle="a" * 64, body=body)
        found = evidence.fold(found, message, float(at))
    assert found is not None
    return found


def test_windows_add_up_and_the_worst_memory_and_temperature_are_kept() -> None:
    found = fold(
        metrics(),
        metrics(rss_bytes=70_000_000, temperature_c=49.0, errors=2, labels=()),
        metrics(labels=(LabelCount(label="dog", count=4, mean_score=0.5),), temperature_c=None),
    )

    expected = Evidence(
        since=100.0,
        until=102.0,
        windows=3,
        results=30,
        errors=2,
        totals=(Total(count=10, p50_ns=1000, p90_ns=2000, p99_ns=3000),) * 3,
        rss_bytes=70_000_000,
        temperature_c=50.0,
        labels={"cat": 10, "dog": 4},
        scores=tuple(3 * each for each in SCORES),
    )
    assert expected == found


def test_the_death_of_a_worker_is_a_crash_and_other_events_are_not() -> None:
    crash = Event(level="error", kind="worker", message="killed by signal 11")

    found = fold(metrics(), crash, Event(level="info", kind="start", message="agent starts"), crash)

    assert (2, 103.0) == (found.crashes, found.until)


def test_what_is_no_evidence_changes_nothing() -> None:
    message: Message[Any] = Message(
        board="pi-1", boot="b", seq=0, time=0.0, bundle=None, body=Availability(status="online")
    )
    found = fold(metrics())

    assert evidence.fold(None, message, 1.0) is None
    assert evidence.fold(found, message, 1.0) is found


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"count": -1}, {"errors"}),
        ({"errors": math.nan}, {"errors"}),
        ({"stages": {"total": stage(p99=-1)}}, {"latency"}),
        ({"stages": {"total": stage(p50=5000)}}, {"latency"}),
        ({"stages": {"total": stage(count=0)}}, {"latency"}),
        ({"stages": {"total": stage(p90=NAN)}}, {"latency"}),
        ({"rss_bytes": 0}, {"memory"}),
        ({"rss_bytes": math.nan}, {"memory"}),
        ({"temperature_c": math.nan}, {"temperature"}),
        ({"temperature_c": math.inf}, {"temperature"}),
        ({"labels": (LabelCount(label="cat", count=-3, mean_score=0.9),)}, {"labels"}),
        ({"labels": (LabelCount(label="cat", count=3, mean_score=math.nan),)}, {"confidence"}),
        ({"scores": (1, 2)}, {"confidence"}),
        ({"scores": (-1, *SCORES[1:])}, {"confidence"}),
    ],
)
def test_a_figure_that_is_none_breaks_its_gate_for_good(fields: dict[str, Any], broken: set[str]) -> None:
    found = fold(metrics(**fields), metrics())

    assert broken == set(found.broken)
    assert all(math.isfinite(each) for each in (found.results, found.errors, found.rss_bytes or 0))


def test_windows_without_results_are_windows() -> None:
    found = fold(metrics(count=0, stages={}, labels=(), scores=()))

    assert (1, 0, (), {}) == (found.windows, found.results, found.totals, found.labels)


def test_memory_is_bounded_whatever_a_board_sends() -> None:
    found = fold(
        *(
            metrics(labels=tuple(LabelCount(label=f"{n}-{i}", count=1, mean_score=0.5) for i in range(500)))
            for n in range(40)
        )
    )

    assert (WINDOWS, LABELS + 1, 20_000) == (len(found.totals), len(found.labels), sum(found.labels.values()))
    assert 20_000 - LABELS == found.labels[OTHER]


def test_what_could_not_be_read_breaks_the_gates_that_it_may_belong_to() -> None:
    found = evidence.spoiled(fold(metrics()), ("errors", "latency"), 200.0)

    assert (("errors", "latency"), 200.0, 1) == (found.broken, found.until, found.windows)
    assert ("errors",) == evidence.spoiled(None, ("errors",), 1.0).broken


def test_merging_is_folding_in_two_places() -> None:
    one, other = fold(metrics(), metrics(errors=1)), fold(metrics(rss_bytes=80_000_000), metrics(scores=()))

    assert evidence.merged(one, other) == evidence.merged(other, one)
    both = evidence.merged(one, other)
    assert (4, 40, 1, 80_000_000) == (both.windows, both.results, both.errors, both.rss_bytes)
    assert tuple(3 * each for each in SCORES) == both.scores
    assert {"cat": 40} == both.labels


def test_what_the_journal_keeps_is_small_and_comes_back() -> None:
    many = tuple(LabelCount(label=f"l{i}", count=1 + i % 3, mean_score=0.5) for i in range(1000))
    whole = fold(*(metrics(labels=many) for _ in range(30)))

    kept = evidence.condensed(whole)

    assert sum(whole.labels.values()) == sum(kept.labels.values())
    assert kept == codec.decode(Evidence, codec.parse_json(codec.canonical_json(kept), "x"), "x")
    assert len(codec.canonical_json(kept)) < 6000
