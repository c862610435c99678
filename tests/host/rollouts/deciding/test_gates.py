"""Each gate: what it lets through, what it stops, and that whatever is missing stops too."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tflotilla.host.rollouts.deciding import gates, verdicts
from tflotilla.host.rollouts.deciding.gates import Seen
from tflotilla.host.rollouts.events import GateResult
from tflotilla.host.rollouts.evidence import Evidence, Total
from tflotilla.host.rollouts.policy import GATES, GateLimits
from tflotilla.shared.contract.deployment import ShadowReport

MS = 1_000_000
#: What a careless reader could let in where a whole number belongs.
NAN: Any = math.nan
LABELS = {"cat": 300, "dog": 200, "owl": 100}
SCORES = (0, 0, 0, 0, 0, 0, 10, 40, 150, 400)
OFF = GateLimits(
    error_rate=None,
    crashes=None,
    latency_ratio=None,
    memory_ratio=None,
    temperature_c=None,
    labels_psi=None,
    confidence_psi=None,
    agreement=None,
)


def total(p50_ms: float, *, count: int = 100, p90_ms: float | None = None, p99_ms: float | None = None) -> Total:
    p90, p99 = p90_ms or 1.2 * p50_ms, p99_ms or 1.5 * p50_ms
    return Total(count=count, p50_ns=int(p50_ms * MS), p90_ns=int(p90 * MS), p99_ns=int(p99 * MS))


def seen_of(**fields: Any) -> Evidence:  # noqa: ANN401 - of Evidence
    whole: dict[str, Any] = {
        "since": 100.0,
        "until": 160.0,
        "windows": 6,
        "results": 600,
        "totals": (total(10.0),) * 6,
        "rss_bytes": 50 << 20,
        "temperature_c": 50.0,
        "labels": LABELS,
        "scores": SCORES,
    }
    return Evidence(**(whole | fields))


GOOD = Seen(
    board="pi-1",
    now=160.0,
    since=100.0,
    evidence=seen_of(),
    before="same",
    baseline=seen_of(since=0.0, until=100.0),
    shadowed=True,
    shadow=ShadowReport(inputs=50, agreed=48),
)


DEFAULT = GateLimits()


def judge(seen: Seen = GOOD, limits: GateLimits = DEFAULT) -> dict[str, GateResult]:
    return {result.gate: result for result in gates.judge(limits, seen)}


def broken(seen: Seen, limits: GateLimits = DEFAULT) -> dict[str, str]:
    return {result.gate: result.figure for result in gates.judge(limits, seen) if not result.ok}


def with_evidence(**fields: Any) -> Seen:  # noqa: ANN401 - of Evidence
    return replace(GOOD, evidence=seen_of(**fields))


def test_a_bundle_that_behaves_as_the_one_before_keeps_every_gate() -> None:
    assert {} == broken(GOOD)
    assert set(GATES) - {"deployment"} == set(judge())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"errors": 20}, {"errors": "20 of 620 inferences failed, 3.2% (at most 2.0%)"}),
        ({"crashes": 1}, {"crashes": "1 crashes (at most 0)"}),
        ({"totals": (total(30.0),) * 6}, {"latency": "p90 36 ms against 12 ms, ×3.00 (at most ×1.5)"}),
        ({"rss_bytes": 90 << 20}, {"memory": "90 MiB against 50 MiB, ×1.80 (at most ×1.5)"}),
        ({"temperature_c": 86.0}, {"temperature": "86.0 °C (at most 85 °C)"}),
        ({"labels": {"cat": 100, "dog": 200, "owl": 300}}, {"labels": "PSI 0.73 (at most 0.25)"}),
        ({"scores": tuple(reversed(SCORES))}, {"confidence": "PSI 12.37 (at most 0.25)"}),
    ],
)
def test_each_gate_stops_what_it_is_for_and_says_the_figures(fields: dict[str, Any], expected: dict[str, str]) -> None:
    assert expected == broken(with_evidence(**fields))


def test_bundles_that_answer_otherwise_don_t_agree() -> None:
    said = "same answer on 30 of 50 inputs, 60% (at least 80%)"

    assert {"agreement": said} == broken(replace(GOOD, shadow=ShadowReport(inputs=50, agreed=30)))


@pytest.mark.parametrize(
    ("seen", "gate", "said"),
    [
        (replace(GOOD, evidence=None), "errors", "no telemetry of it in 60 s (nor can crashes, latency"),
        (replace(GOOD, now=400.0), "errors", "silent for 240 s"),
        (with_evidence(windows=0, results=0, totals=()), "errors", "no metrics of it in 60 s"),
        (with_evidence(results=0, totals=(), labels={}, scores=()), "errors", "not one result in 60 s"),
        (with_evidence(totals=(total(10.0, count=10),)), "latency", "10 runs are too few to judge latency"),
        (with_evidence(rss_bytes=None), "memory", "its memory was not reported"),
        (with_evidence(temperature_c=None), "temperature", "its temperature is not reported any more"),
        (with_evidence(labels={}), "labels", "the bundle named no labels"),
        (with_evidence(scores=()), "confidence", "the bundle told no scores; upgrade its agent"),
        (replace(GOOD, baseline=None), "latency", "0 runs of the bundle before are too few to compare"),
        (replace(GOOD, baseline=None), "memory", "the memory of the bundle before is unknown"),
        (replace(GOOD, baseline=None), "labels", "labels of the bundle before are unknown"),
        (replace(GOOD, shadow=None), "agreement", "it was not tried beside the bundle before"),
        (replace(GOOD, shadow=ShadowReport(inputs=0, agreed=0, reason="no inputs")), "agreement", "no inputs"),
        (replace(GOOD, shadow=ShadowReport(inputs=0, agreed=0)), "agreement", "it saw no inputs"),
        (replace(GOOD, shadow=ShadowReport(inputs=5, agreed=9)), "agreement", "same answer on 9 of 5"),
    ],
)
def test_what_is_missing_fails(seen: Seen, gate: str, said: str) -> None:
    assert broken(seen)[gate].startswith(said)


@pytest.mark.parametrize("gate", ["errors", "crashes", "latency", "memory", "temperature", "labels", "confidence"])
def test_a_figure_that_was_none_fails_its_gate(gate: str) -> None:
    assert {gate: f"{gate}: its report was no number"} == broken(with_evidence(broken=(gate,)))


@pytest.mark.parametrize(
    ("fields", "gate"),
    [
        ({"temperature_c": math.nan}, "temperature"),
        ({"rss_bytes": math.nan}, "memory"),
        ({"errors": math.nan}, "errors"),
        ({"totals": (Total(count=100, p50_ns=NAN, p90_ns=NAN, p99_ns=NAN),) * 6}, "latency"),
        ({"labels": {"cat": -1, "dog": 5}}, "labels"),
    ],
)
def test_not_a_number_is_never_within_a_limit(fields: dict[str, Any], gate: str) -> None:
    assert gate in broken(with_evidence(**fields))


def test_a_worker_that_never_lived_for_a_window_is_a_crash_and_no_silence() -> None:
    said = broken(with_evidence(windows=0, results=0, totals=(), crashes=7, rss_bytes=None))

    assert "7 crashes (at most 0)" == said["crashes"]


@pytest.mark.parametrize(
    ("before", "baseline", "why"),
    [
        ("nothing", None, "nothing served before"),
        ("other", seen_of(labels={"fish": 9}), "another model served before"),
        ("same", seen_of(results=0, errors=500, totals=(), labels={}), "the bundle before gave no result"),
        ("same", Evidence(since=0.0, until=9.0, crashes=3), "the bundle before gave no result"),
    ],
)
def test_what_compares_does_not_apply_where_there_is_nothing_to_compare_with(
    before: Any,  # noqa: ANN401 - the literals of Seen
    baseline: Evidence | None,
    why: str,
) -> None:
    found = judge(replace(GOOD, before=before, baseline=baseline))

    assert {f"does not apply: {why}"} == {found[gate].figure for gate in ("latency", "labels", "confidence")}
    assert all(result.ok for result in found.values())


def test_limits_that_compare_with_nothing_hold_where_nothing_served_before() -> None:
    seen = replace(GOOD, before="nothing", baseline=None)
    limits = replace(OFF, latency_ms=12.0, memory_mib=40.0)

    assert {"latency": "p90 12 ms (at most 11 ms)", "memory": "50 MiB (at most 40 MiB)"} == broken(
        seen, replace(limits, latency_ms=11.0)
    )
    assert {"memory"} == set(broken(seen, limits))


def test_a_camera_before_which_nothing_moves_is_not_the_bundles_fault() -> None:
    still: dict[str, Any] = {"results": 0, "totals": (), "labels": {}, "scores": ()}
    seen = replace(GOOD, evidence=seen_of(**still), baseline=seen_of(**still))

    assert {} == broken(seen)
    assert {"errors"} < set(broken(replace(seen, baseline=None)))


def test_gates_that_are_off_want_nothing() -> None:
    assert () == gates.judge(OFF, replace(GOOD, evidence=None, shadow=None))


def test_no_shadow_that_nobody_asked_for_is_missed() -> None:
    assert {} == broken(replace(GOOD, shadowed=False, shadow=None))
    assert (
        "does not apply: it had the bundle already"
        == judge(replace(GOOD, shadow=None, changed=False))["agreement"].figure
    )


def test_a_hiccup_of_microseconds_is_the_scheduler() -> None:
    tiny = {"totals": (total(0.025),) * 6}
    slower = {"totals": (total(0.07),) * 6}

    assert {} == broken(replace(GOOD, evidence=seen_of(**slower), baseline=seen_of(**tiny)))


def test_a_median_that_is_slower_shows_although_the_tail_was_bad_before() -> None:
    before = seen_of(totals=(total(2.0, p90_ms=40.0, p99_ms=50.0),) * 6)
    now = seen_of(totals=(total(6.0, p90_ms=41.0, p99_ms=52.0),) * 6)

    assert {"latency": "p50 6 ms against 2 ms, ×3.00 (at most ×1.5)"} == broken(
        replace(GOOD, evidence=now, baseline=before)
    )


def test_windows_that_are_long_make_a_board_slow_to_speak_and_not_silent() -> None:
    slow = seen_of(since=0.0, until=300.0, windows=4)

    assert {} == broken(replace(GOOD, now=500.0, evidence=slow))
    assert {"errors"} == set(broken(replace(GOOD, now=700.0, evidence=slow)))


def results(board: str, *, ok: bool = True, value: float = 0.5) -> tuple[GateResult, ...]:
    figure = f"{value:.0%} failed (at most 100%)"
    return (GateResult(gate="errors", board=board, ok=ok, figure=figure, value=value, limit=1.0),)


def test_a_verdict_names_gate_boards_and_figures() -> None:
    found = verdicts.of_wave(
        1,
        4,
        judged={"pi-1": results("pi-1"), "pi-2": results("pi-2", ok=False, value=1.5)},
        failed={"pi-3": "ProbeError: 7 LSB off"},
        misbehaved={},
        success=0.9,
    )

    expected = (
        "wave 2 of 4: 1 of 3 boards keep every gate (at least 90.0% must): deployment: pi-3 ProbeError: 7 LSB off; "
        "errors: pi-2 150% failed (at most 100%)"
    )
    assert (False, expected, ("pi-2",)) == (found.ok, found.reason, found.misbehaved)


def test_a_verdict_that_is_good_names_what_came_closest() -> None:
    found = verdicts.of_wave(
        0, 1, judged={"a": results("a", value=0.2), "b": results("b", value=0.9)}, failed={}, misbehaved={}, success=1
    )

    assert (True, ("b",)) == (found.ok, tuple(result.board for result in found.results))
    assert "wave 1 of 1: 2 of 2 boards keep every gate; closest: errors, b 90% failed (at most 100%)" == found.reason


def test_a_wave_of_nobody_fails() -> None:
    found = verdicts.of_wave(0, 1, judged={}, failed={}, misbehaved={}, success=0.0)

    assert (False, "wave 1 of 1: not one board was reached") == (found.ok, found.reason)


def test_a_wave_in_which_nothing_moved_before_any_camera_fails() -> None:
    still = (GateResult(gate="errors", board="a", ok=True, figure="does not apply: no input came, as before it"),)
    found = verdicts.of_wave(0, 1, judged={"a": still}, failed={}, misbehaved={}, success=0.5)

    assert (False, "wave 1 of 1: 1 of 1 boards keep every gate, but not one of them gave a result") == (
        found.ok,
        found.reason,
    )
