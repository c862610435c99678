"""The verdict: each disturbance makes figures invalid by itself, with its figures; what is unknown is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.device.conditions.boards_copied import BOARDS
from tflotilla.device.conditions.clocks import ClockChange, Clocks
from tflotilla.device.conditions.verdict import QUOTED, judge
from tflotilla.device.conditions.watch import Evidence, Span, Watch
from tflotilla.shared.contract.benchmark import (
    BoardReading,
    Conditions,
    Distribution,
    Drift,
    Method,
    PercentileFigure,
    ProcessLoad,
    Verdict,
)

STEADY = Drift(change=0.001, p_value=0.7, drifting=False)
METHOD = Method()
NEEDED = {5.0: 130, 50.0: 11, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6636}


def _reading(at_s: float, **changes: Any) -> BoardReading:  # noqa: ANN401 - as of the dataclass
    reading = BoardReading(
        at_s=at_s,
        temperature_c=50.0,
        frequencies_khz=(1_800_000,) * 4,
        governor="performance",
        throttled=0,
        load_1min=1.0,
        swap_used_bytes=0,
        memory_available_bytes=1 << 30,
    )
    return dataclasses.replace(reading, **changes)


def _good() -> Evidence:
    return Evidence(
        conditions=Conditions(
            before=_reading(-2.0),
            after=_reading(10.0),
            during=(_reading(0.0), _reading(5.0)),
            others=(ProcessLoad(name="sshd", pid=612, cpu_percent=1.0),),
            other_cpu_percent=3.0,
        ),
        seconds=10.0,
        frequency=Span(lowest_khz=1_800_000, highest_khz=1_800_000),
        pages_swapped=0,
        throttle_events=None,
        quota_stopped_us=0,
        disk_faults=0,
        clock=ClockChange(bend=0.0001, suspended_s=0.0),
        machine="Raspberry Pi 4 Model B Rev 1.4",
        firmware_answered=True,
        cost_ns=1_000_000,
        looks=20,
    )


def _with(**changes: Any) -> Evidence:  # noqa: ANN401 - as of the dataclass
    """Change the evidence; what it hasn't is of its conditions."""
    good = _good()
    conditions = {key: value for key, value in changes.items() if hasattr(good.conditions, key)}
    own = {key: value for key, value in changes.items() if key not in conditions}
    return dataclasses.replace(good, conditions=dataclasses.replace(good.conditions, **conditions), **own)


def _everywhere(**changes: Any) -> Evidence:  # noqa: ANN401 - as of the dataclass
    """Change every reading."""
    return _with(before=_reading(-2.0, **changes), during=(_reading(5.0, **changes),), after=_reading(10.0, **changes))


def _latency(runs: int) -> Distribution:
    return Distribution(
        count=runs,
        mean_ns=5.0,
        std_ns=0.0,
        min_ns=5,
        max_ns=5,
        median_ns=5,
        mad_ns=0,
        percentiles=tuple(
            PercentileFigure(percent=percent, value_ns=5 if runs >= needed else None, bound_ns=None, runs_needed=needed)
            for percent, needed in NEEDED.items()
        ),
    )


def _judge(
    evidence: Evidence, *, method: Method = METHOD, runs: int = 1000, drift: Drift = STEADY, late: int = 0
) -> Verdict:
    return judge(evidence, method=method, latency=_latency(runs), drift=drift, late=late)


def test_a_quiet_board_is_valid_and_nothing_need_be_said() -> None:
    assert Verdict(valid=True) == _judge(_good())


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (
            _with(during=(_reading(0.0), _reading(12.5, throttled=0x50005))),
            "the firmware slowed the processor down at 12.5 s (0x50005: under-voltage, throttled)",
        ),
        (_with(before=_reading(-2.0, throttled=0x2)), "down before the first run (0x2: frequency capped)"),
        (_with(after=_reading(10.0, throttled=0x80008)), "down at 10.0 s (0x80008: soft temperature limit)"),
        (_with(after=_reading(10.0, throttled=0x40000)), "during the runs (0x40000, before 0x0: throttled)"),
        (
            _with(before=_reading(-2.0, throttled=0x10000), after=_reading(10.0, throttled=0x90000)),
            "during the runs (0x90000, before 0x10000: soft temperature limit)",
        ),
        (_with(throttle_events=1), "the processor was slowed down for heat once during the runs"),
        (_with(throttle_events=12), "slowed down for heat 12 times"),
        (
            _with(during=(_reading(1.0, cooling=1), _reading(2.0, cooling=3))),
            "the kernel slowed the processor down for heat (cooling state 3 at 2.0 s)",
        ),
        (
            _with(frequency=Span(lowest_khz=600_000, highest_khz=1_800_000), after=_reading(10.0, governor="ondemand")),
            "the frequency moved between 600 and 1800 MHz; the governor is ondemand, `performance` holds it",
        ),
        (
            _with(others=(ProcessLoad(name="apt", pid=77, cpu_percent=10.5),), other_cpu_percent=11.0),
            "another process took more than 10 % of a core: apt (77) 10 %",
        ),
        (
            _with(
                others=tuple(ProcessLoad(name=f"p{i}", pid=i, cpu_percent=90.0 - i) for i in range(5)),
                other_cpu_percent=440.0,
            ),
            "other processes took more than 10 % of a core: p0 (0) 90 %, p1 (1) 89 %, p2 (2) 88 % and 2 more",
        ),
        (
            _with(other_cpu_percent=64.0),
            "(small, short or hidden processes, the kernel) took 63 % of a core, more than 10 %",
        ),
        (_with(quota_stopped_us=350_000), "a CPU quota of this process' control group stopped it for 0.35 s"),
        (_with(disk_faults=101), "101 times a run waited for the disk to give back what was in memory"),
        (
            _with(
                others=tuple(ProcessLoad(name=f"p{i}", pid=i, cpu_percent=90.0) for i in range(3)),
                other_cpu_percent=270.0,
            ),
            "took more than 10 % of a core: p0 (0) 90 %, p1 (1) 90 %, p2 (2) 90 %",
        ),
        (_with(pages_swapped=257), "the board swapped 1.0 MiB during the runs: memory is short"),
        (_with(pages_swapped=1000), "the board swapped 3.9 MiB during the runs"),
        (_with(pages_swapped=None, after=_reading(10.0, swap_used_bytes=5 << 20)), "the board swapped 5.0 MiB"),
        (_with(clock=ClockChange(bend=0.083, suspended_s=0.0)), "the clock went 8.3 % too fast"),
        (_with(clock=ClockChange(bend=-0.01, suspended_s=0.0)), "the clock went 1.0 % too slow"),
        (_with(clock=ClockChange(bend=None, suspended_s=31.0)), "the board was suspended for 31.0 s"),
        (
            _everywhere(temperature_c=82.1, throttled=None),
            "the processor reached 82.1 °C, where boards slow down (from 80 °C), and this one can't say whether it did",
        ),
    ],
)
def test_one_disturbance_is_one_reason_with_its_figures(evidence: Evidence, words: str) -> None:
    verdict = _judge(evidence)

    assert not verdict.valid
    assert 1 == len(verdict.reasons)
    assert words in verdict.reasons[0]
    assert "and 0 more" not in verdict.reasons[0]


@pytest.mark.parametrize(
    "evidence",
    [
        _with(frequency=Span(lowest_khz=3_430_000, highest_khz=3_600_000)),
        _with(others=(ProcessLoad(name="apt", pid=77, cpu_percent=10.0),), other_cpu_percent=20.0),
        _with(other_cpu_percent=11.0),
        _with(pages_swapped=256),
        _with(clock=ClockChange(bend=0.0005, suspended_s=0.0)),
        _with(throttle_events=0),
        _with(quota_stopped_us=9_000),
        _with(quota_stopped_us=None),
        _with(disk_faults=100),
        _everywhere(cooling=0),
        _everywhere(temperature_c=84.0),
    ],
)
def test_what_is_within_bounds_is_valid(evidence: Evidence) -> None:
    """Turbo bins, a steered clock, and heat of which the firmware says that it did nothing."""
    assert Verdict(valid=True) == _judge(evidence)


def test_two_ticks_of_the_kernel_are_no_process_in_a_short_run() -> None:
    """20 ms in a run of 100 ms are 20 %, and may have been 11 ms."""
    loud = {"others": (ProcessLoad(name="apt", pid=77, cpu_percent=20.0),), "other_cpu_percent": 20.0}

    assert _judge(_with(seconds=0.1, **loud)).valid
    assert not _judge(_with(seconds=1.0, **loud)).valid


@pytest.mark.parametrize("limit", [0.0, 50.0, 400.0])
def test_the_limit_for_others_is_the_user_s(limit: float) -> None:
    loud = _with(others=(ProcessLoad(name="worker", pid=9, cpu_percent=60.0),), other_cpu_percent=60.0)

    assert _judge(loud, method=Method(max_other_cpu_percent=limit)).valid == (limit > 60.0)


@pytest.mark.parametrize(
    ("method", "percent"),
    [
        (Method(scenario="single_stream"), 90.0),
        (Method(scenario="multi_stream"), 99.0),
        (Method(scenario="offline"), 50.0),
        (Method(scenario="server", qps=10.0), 99.0),
    ],
)
def test_each_scenario_needs_the_runs_of_the_percentile_it_is_quoted_by(method: Method, percent: float) -> None:
    needed = NEEDED[percent]

    short = _judge(_good(), method=method, runs=needed - 1)

    assert QUOTED[method.scenario] == percent
    assert Verdict(valid=True) == _judge(_good(), method=method, runs=needed)
    assert 1 == len(short.reasons)
    assert f"too few runs for p{percent:g} ({needed - 1} of {needed})" in short.reasons[0]
    assert "fewer were asked for" in short.reasons[0]


def test_a_search_whose_trials_end_early_does_not_blame_the_request() -> None:
    method = Method(scenario="server", latency_bound_ms=0.01)

    (reason,) = _judge(_good(), method=method, runs=7).reasons

    assert "too few runs for p99 (7 of 662)" in reason
    assert "the bound could not be kept" in reason


def test_runs_that_began_late_are_a_reason_from_one_in_a_hundred() -> None:
    method = Method(rate_hz=30.0)

    late = _judge(_good(), method=method, late=11)

    assert _judge(_good(), method=method, late=10).valid
    assert ("11 of 1000 runs began late: the board doesn't keep up with 30 runs a second",) == late.reasons


def test_drift_is_told_with_the_heat_that_went_with_it() -> None:
    drift = Drift(change=0.082, p_value=0.0004, drifting=True)
    warmed = _with(after=_reading(10.0, temperature_c=71.0))

    assert (
        "runs became 8.2 % slower from beginning to end (p = 0.0004), while the processor went from 50.0 to 71.0 °C",
    ) == _judge(warmed, drift=drift).reasons
    faster = Drift(change=-0.05, p_value=0.001, drifting=True)
    assert ("runs became 5.0 % faster from beginning to end (p = 0.001)",) == _judge(
        _everywhere(temperature_c=None), drift=faster
    ).reasons


def test_a_board_that_did_not_cool_down_is_told() -> None:
    method = Method(cool_to_c=55.0)
    warm = _with(before=_reading(-2.0, temperature_c=61.2), cooled_s=300.0)

    assert _judge(_with(before=_reading(-2.0, temperature_c=55.9)), method=method).valid
    assert ("the processor began at 61.2 °C instead of 55 °C, after 300 s of waiting",) == _judge(
        warm, method=method
    ).reasons


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (
            _everywhere(throttled=None),
            ["the processor was slowed down; the firmware could not be asked (add the agent's user"],
        ),
        (
            dataclasses.replace(_everywhere(throttled=None), machine="ASUS"),
            ["whether the processor was slowed down; this board has no counter of it"],
        ),
        (_with(frequency=None), ["not checked: the processor's frequency"]),
        (_everywhere(temperature_c=None), ["not checked: the temperature"]),
        (_with(other_cpu_percent=None), ["not checked: what all other processes took"]),
        (
            _with(
                pages_swapped=None,
                before=_reading(-2.0, swap_used_bytes=None),
                during=(),
                after=_reading(10.0, swap_used_bytes=None),
            ),
            ["not checked: swapping"],
        ),
        (_with(firmware_answered=False), ["always 0 on some kernels; the firmware could not be asked"]),
        (
            _everywhere(throttled=0xE0000),
            ["since boot, the firmware reported: frequency capped, throttled, soft temperature limit (0xe0000)"],
        ),
        (
            _with(
                before=_reading(-2.0, throttled=0x10000),
                during=(_reading(1.0, throttled=None),),
                after=_reading(10.0, throttled=0x10000),
            ),
            ["these bits stay set until a reboot"],
        ),
        (_everywhere(throttled=None, cooling=0), []),
        (_with(throttle_events=0, during=()), []),
    ],
)
def test_what_nobody_knows_is_said_and_is_no_reason(evidence: Evidence, words: list[str]) -> None:
    verdict = _judge(evidence)

    assert verdict.valid
    assert () == verdict.reasons
    assert len(words) == len(verdict.notes)
    assert all(word in note for word, note in zip(words, verdict.notes, strict=True))


def test_several_disturbances_are_all_told() -> None:
    everything = _with(
        before=_reading(-2.0, throttled=0x1, cooling=1),
        pages_swapped=99_999,
        other_cpu_percent=90.0,
        frequency=Span(lowest_khz=1, highest_khz=2),
        clock=ClockChange(bend=0.5, suspended_s=5.0),
    )

    assert 8 == len(_judge(everything, runs=3).reasons)


@pytest.mark.parametrize(
    ("name", "reasons", "notes"),
    [
        ("pi3", ["0x50005: under-voltage, throttled"], ["since boot, the firmware reported", "heard last"]),
        ("pi4", [], []),
        ("pi5", [], ["0xe0000"]),
        ("rock5", ["cooling state 3"], []),
        ("laptop", [], []),
        ("no_sensors", [], ["slowed down", "frequency", "temperature"]),
        ("container", [], ["slowed down", "frequency", "temperature", "swapping"]),
    ],
)
def test_each_board_gets_the_verdict_that_its_files_deserve(name: str, reasons: list[str], notes: list[str]) -> None:
    now_ns = 0
    clocks = Clocks(monotonic_ns=0, raw_ns=0, boot_ns=0)
    watch = Watch(BOARDS / name, clock=lambda: now_ns, read_clocks=lambda: clocks, own=frozenset())
    watch.begin()
    for _ in range(4):
        watch.look(now_ns)
        now_ns += 500_000_000

    verdict = _judge(watch.end())

    assert (not reasons) == verdict.valid
    assert len(reasons) == len(verdict.reasons), verdict.reasons
    assert all(word in reason for word, reason in zip(reasons, verdict.reasons, strict=True))
    assert len(notes) == len(verdict.notes), verdict.notes
    assert all(any(word in note for note in verdict.notes) for word in notes)
