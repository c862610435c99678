"""The watch: when it looks, what it keeps, and what it makes of two moments."""

from __future__ import annotations

import dataclasses
import itertools
import os
from typing import TYPE_CHECKING

import pytest

from tests.device.conditions.boards_copied import BOARDS, copy, set_busy, set_process
from tflotilla.device.conditions.clocks import Clocks
from tflotilla.device.conditions.watch import Span, Thinned, Watch, working_khz, worst
from tflotilla.shared.contract.benchmark import BoardReading

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
SECOND_NS = 1000 * MS
TICKS = os.sysconf("SC_CLK_TCK")
OWN = frozenset({640})


class FakeClock:
    """Goes when it is told to, and by `step_ns` each time somebody looks at it."""

    def __init__(self, *, step_ns: int = 0) -> None:
        self.now_ns = 100 * SECOND_NS
        self.step_ns = step_ns

    def __call__(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def read(self) -> Clocks:
        return Clocks(monotonic_ns=self.now_ns, raw_ns=self.now_ns, boot_ns=self.now_ns)


def _watch(root: Path, clock: FakeClock, *, threads: int = 1, cores: tuple[int, ...] = (), keep: int = 120) -> Watch:
    return Watch(root, threads=threads, cores=cores, own=OWN, clock=clock, read_clocks=clock.read, keep=keep)


def _set_khz(root: Path, khz: int) -> None:
    (root / "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq").write_text(f"{khz}\n")


def test_a_cell_is_watched_from_before_to_after(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    clock = FakeClock()
    watch = _watch(root, clock)

    watch.prepare()
    clock.now_ns += 3 * SECOND_NS
    watch.begin()
    for _ in range(20):
        watch.look(clock.now_ns)
        clock.now_ns += 100 * MS
    set_process(root, 612, "sshd", user=8 + TICKS, started=1204)
    set_busy(root, 112281 + TICKS)
    evidence = watch.end(cooled_s=7.5)

    conditions = evidence.conditions
    assert (-3.0, 0x0, 48.312) == (conditions.before.at_s, conditions.before.throttled, conditions.before.temperature_c)
    assert [0.0, 0.5, 1.0, 1.5] == [reading.at_s for reading in conditions.during]
    assert (2.0, 0x0) == (conditions.after.at_s, conditions.after.throttled)
    assert [("sshd", 50.0)] == [(load.name, load.cpu_percent) for load in conditions.others]
    assert 50.0 == conditions.other_cpu_percent
    assert 7.5 == conditions.cooled_s
    assert (2.0, 4, True) == (evidence.seconds, evidence.looks, evidence.firmware_answered)
    assert Span(lowest_khz=1_800_000, highest_khz=1_800_000) == evidence.frequency
    assert (0, None, 0.0) == (evidence.pages_swapped, evidence.throttle_events, evidence.clock.suspended_s)


def test_between_two_looks_nothing_is_read(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    clock = FakeClock()
    watch = _watch(root, clock)
    watch.begin()

    looked = [watch.look(clock.now_ns + at_ms * MS) for at_ms in (0, 1, 499)]
    clock.now_ns += 500 * MS

    assert [True, False, False] == looked
    assert clock.now_ns == watch.due_ns
    assert watch.look(clock.now_ns)


def test_looks_say_what_they_cost(tmp_path: Path) -> None:
    """From the time the loop gave to the time when reading was over."""
    root = copy("pi4", tmp_path)
    clock = FakeClock(step_ns=MS)
    watch = _watch(root, clock)
    watch.begin()

    watch.look(clock.now_ns)
    clock.now_ns += SECOND_NS
    watch.look(clock.now_ns)

    assert 2 * MS == watch.cost_ns
    assert clock.now_ns + 500 * MS == watch.due_ns


def test_a_dip_of_the_frequency_is_kept_however_long_the_run(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    clock = FakeClock()
    watch = _watch(root, clock, keep=4)
    watch.begin()

    for number in range(1000):
        if number in {437, 438}:
            _set_khz(root, 600_000 if number == 437 else 1_800_000)
        watch.look(clock.now_ns)
        clock.now_ns += 500 * MS
    evidence = watch.end()

    assert Span(lowest_khz=600_000, highest_khz=1_800_000) == evidence.frequency
    assert 1000 == evidence.looks
    assert len(evidence.conditions.during) <= 4
    assert 1 == sum(600_000 in reading.frequencies_khz for reading in evidence.conditions.during)


def test_a_governor_that_rests_after_the_runs_moved_nothing(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    clock = FakeClock()
    watch = _watch(root, clock)
    _set_khz(root, 600_000)
    watch.prepare()
    _set_khz(root, 1_800_000)
    watch.begin()
    for _ in range(2):
        watch.look(clock.now_ns)
        clock.now_ns += 500 * MS
    _set_khz(root, 600_000)

    assert Span(lowest_khz=1_800_000, highest_khz=1_800_000) == watch.end().frequency


def test_a_run_too_short_for_two_looks_takes_the_last_reading_too(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    clock = FakeClock()
    watch = _watch(root, clock)
    watch.begin()
    watch.look(clock.now_ns)
    _set_khz(root, 1_500_000)

    assert Span(lowest_khz=1_500_000, highest_khz=1_800_000) == watch.end().frequency


def test_what_the_kernel_counts_is_counted_from_the_first_run(tmp_path: Path) -> None:
    root = copy("laptop", tmp_path)
    clock = FakeClock()
    faults = iter((12, 15))
    watch = Watch(root, own=OWN, clock=clock, read_clocks=clock.read, disk_faults=lambda: next(faults))
    vmstat = root / "proc/vmstat"
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text("0::/system.slice/tflotilla-agent.service\n")
    (root / "sys/fs/cgroup/system.slice").mkdir(parents=True)
    (root / "sys/fs/cgroup/system.slice/cpu.stat").write_text("nr_throttled 2\nthrottled_usec 5000\n")
    watch.prepare()
    vmstat.write_text(vmstat.read_text().replace("pswpin 12\n", "pswpin 500\n"))
    watch.begin()
    vmstat.write_text(vmstat.read_text().replace("pswpin 500\n", "pswpin 540\n"))
    (root / "sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count").write_text("9\n")
    (root / "sys/fs/cgroup/system.slice/cpu.stat").write_text("nr_throttled 9\nthrottled_usec 7123\n")
    clock.now_ns += SECOND_NS

    evidence = watch.end()

    assert (40, 6, 2123) == (evidence.pages_swapped, evidence.throttle_events, evidence.quota_stopped_us)
    assert 3 == evidence.disk_faults


def test_a_board_that_tells_nothing_gives_evidence_of_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    watch = _watch(tmp_path, clock)
    watch.begin()
    watch.look(clock.now_ns)
    clock.now_ns += SECOND_NS

    evidence = watch.end()

    nothing = (evidence.frequency, evidence.pages_swapped, evidence.throttle_events, evidence.quota_stopped_us)
    assert (None, None, None, None) == nothing
    assert ((), None) == (evidence.conditions.others, evidence.conditions.other_cpu_percent)


def test_a_watch_that_never_began_can_not_end() -> None:
    with pytest.raises(RuntimeError, match="never began"):
        _watch(BOARDS / "pi4", FakeClock()).end()


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [
        (1, frozenset[int](), 2400),
        (2, frozenset[int](), 2300),
        (4, frozenset[int](), 1800),
        (8, frozenset[int](), 408),
        (99, frozenset[int](), 408),
        (1, frozenset({0}), 1800),
        (2, frozenset({0, 5}), 1800),
        (1, frozenset({7}), None),
        (1, frozenset({77}), None),
    ],
)
def test_the_cores_that_work_decide(threads: int, cores: frozenset[int], expected: int | None) -> None:
    """Two clusters: little cores 0-3, big ones 4-7, of which the last is switched off and others rest."""
    assert expected == working_khz((1800, 1800, 1800, 408, 2300, 2400, 408, 0), threads, cores)


def test_no_frequency_is_no_answer() -> None:
    assert working_khz((), 1, frozenset()) is None


def _reading(number: int) -> BoardReading:
    """Bad luck of all kinds at odd moments."""
    return BoardReading(
        at_s=number / 2,
        temperature_c=None if number % 7 == 3 else 40 + number * 7919 % 45,
        frequencies_khz=(600 + number * 104729 % 900, 1500),
        throttled=None if number % 5 else 1 << (number // 5 * 31 % 20),
        cooling=number * 37 % 5,
        swap_used_bytes=number * 13 % 100,
        memory_available_bytes=1000 - number * 17 % 500,
    )


@pytest.mark.parametrize("keep", [1, 2, 3, 7, 8, 120])
def test_however_many_readings_few_are_kept_and_nothing_bad_is_lost(keep: int) -> None:
    """For every number of looks up to 400."""
    thinned = Thinned(keep)
    worst_of_all = None
    for number in range(400):
        reading = _reading(number)
        thinned.add(reading)
        worst_of_all = worst(worst_of_all, reading) if worst_of_all else reading

        kept = thinned.readings()

        assert 1 <= len(kept) <= keep
        assert 0.0 == kept[0].at_s
        times = [reading.at_s for reading in kept]
        steps = {later - earlier for earlier, later in itertools.pairwise(times)}
        assert len(steps) <= 1, "kept evenly"
        worst_of_kept = kept[0]
        for later in kept[1:]:
            worst_of_kept = worst(worst_of_kept, later)
        assert worst_of_all == worst_of_kept


def test_few_readings_are_kept_as_they_are() -> None:
    thinned = Thinned(8)
    given = [_reading(number) for number in range(8)]
    for reading in given:
        thinned.add(reading)

    assert tuple(given) == thinned.readings()


def test_none_can_not_be_kept() -> None:
    with pytest.raises(ValueError, match="at least one reading"):
        Thinned(0)


def test_what_one_reading_does_not_know_the_other_does() -> None:
    known = BoardReading(
        at_s=1.0, temperature_c=50.0, frequencies_khz=(5,), governor="ondemand", throttled=4, cooling=1
    )
    unknown = BoardReading(at_s=2.0)

    assert known == dataclasses.replace(worst(known, unknown), frequencies_khz=(5,))
    assert dataclasses.replace(known, at_s=2.0) == worst(unknown, known)


def test_this_machine_can_be_watched() -> None:
    watch = Watch(interval_s=0.0)
    watch.begin()
    for _ in range(3):
        watch.look(watch.due_ns)

    evidence = watch.end()

    assert 3 == evidence.looks
    assert evidence.cost_ns > 0
    assert evidence.conditions.before.at_s <= 0 <= evidence.conditions.after.at_s
