"""Memory, clocks, identity and cooling: the small readers and the wait."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.device.conditions.boards_copied import BOARDS, NAMES
from tflotilla.device.conditions import clocks, cooling, identity, memory, quota
from tflotilla.device.conditions.clocks import Clocks
from tflotilla.device.conditions.cooling import Cooled
from tflotilla.device.conditions.identity import Hardware

if TYPE_CHECKING:
    from pathlib import Path

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "kills", "pages"),
    [
        ("pi3", 0, 11_132),
        ("pi4", 1, 0),
        ("laptop", 0, 70_124),
        ("no_sensors", None, None),
        ("container", None, None),
    ],
)
def test_kills_and_swapping_are_counted_where_the_kernel_counts(
    name: str, kills: int | None, pages: int | None
) -> None:
    assert kills == memory.oom_kills(BOARDS / name)
    assert pages == memory.pages_swapped(BOARDS / name)


def test_a_process_may_volunteer_to_be_killed_first() -> None:
    """In a process of its own, as it can't be taken back."""
    code = (
        "from tflotilla.device.conditions import memory\n"
        "print(memory.set_oom_score_adj(1000), open('/proc/self/oom_score_adj').read())"
    )

    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert ["True", "1000"] == said.split()


def test_where_it_can_not_be_said_it_is_not(tmp_path: Path) -> None:
    assert not memory.set_oom_score_adj(0, tmp_path)
    with pytest.raises(ValueError, match=r"-1000\.\.1000, not 1001"):
        memory.set_oom_score_adj(1001, tmp_path)


def _clocks(monotonic_s: float, raw_s: float, boot_s: float) -> Clocks:
    return Clocks(
        monotonic_ns=round(monotonic_s * SECOND_NS), raw_ns=round(raw_s * SECOND_NS), boot_ns=round(boot_s * SECOND_NS)
    )


def test_a_clock_that_is_steered_is_seen_against_one_that_is_not() -> None:
    change = clocks.between(_clocks(100, 50, 200), _clocks(110.8, 60, 210.8))

    assert change.bend == pytest.approx(0.08)
    assert change.suspended_s == pytest.approx(0.0)


def test_a_machine_that_slept_is_seen_by_the_clock_that_goes_on() -> None:
    change = clocks.between(_clocks(100, 50, 200), _clocks(101, 51, 231))

    assert change.suspended_s == pytest.approx(30.0)


def test_no_bend_is_told_when_reading_the_clocks_took_too_long_for_it() -> None:
    """A millisecond between two clocks is as much as a bend of one in a thousand in a second."""
    torn = dataclasses.replace(_clocks(2, 2, 2), width_ns=1_000_000)

    assert clocks.between(_clocks(1, 1, 1), torn).bend is None
    assert clocks.between(_clocks(0.5, 0.5, 0.5), torn).bend == 0.0
    assert clocks.between(_clocks(1, 1, 1), _clocks(1, 1, 1)).bend is None


def test_this_machine_s_clocks_go_together() -> None:
    """Whatever the load: what an interruption spoils is not told."""
    first = clocks.read()
    while clocks.read().raw_ns - first.raw_ns < 200_000_000:
        pass

    change = clocks.between(first, clocks.read())

    assert change.bend is None or abs(change.bend) < 0.002
    assert change.suspended_s < 0.01


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pi3", Hardware(clock_source="arch_sys_counter", revision="a020d3")),
        ("pi4", Hardware(clock_source="arch_sys_counter", revision="c03114")),
        ("pi5", Hardware(clock_source="arch_sys_counter", revision="d04170")),
        ("rock5", Hardware(clock_source="arch_sys_counter", revision=None)),
        ("laptop", Hardware(clock_source="tsc", revision=None)),
        ("no_sensors", Hardware(clock_source="arch_sys_counter", revision=None)),
        ("container", Hardware(clock_source=None, revision=None)),
    ],
)
def test_each_board_is_told_from_its_like(name: str, expected: Hardware) -> None:
    assert name in NAMES
    assert expected == identity.read(BOARDS / name)


@pytest.mark.parametrize(
    ("cgroup", "stats", "expected"),
    [
        ("0::/a/b\n", {"a/b": "throttled_usec 5\n", "a": "nr_throttled 1\nthrottled_usec 7\n"}, 12),
        ("0::/\n", {".": "usage_usec 9\n"}, None),
        ("0::/\n", {".": "usage_usec 9\nthrottled_usec 0\n"}, 0),
        ("4:cpu,cpuacct:/docker/x\n3:memory:/y\n0::/\n", {"cpu/docker/x": "throttled_time 3000000\n"}, 3000),
        ("0::/../../x\n", {"x": "throttled_usec 5\n"}, None),
        ("3:cpuset:/\n", {"cpu": "throttled_time 1000\n"}, None),
        ("0::" + "/d" * 99, {}, None),
        ("garbage", {".": "throttled_usec 5\n"}, None),
        ("0::/\n", {".": "throttled_usec x\nthrottled_usec -4\n"}, None),
    ],
)
def test_a_quota_counts_in_every_group_above(
    cgroup: str, stats: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for group, text in stats.items():
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.stat").write_text(text)

    assert expected == quota.stopped_us(tmp_path)


class FakeRoom:
    """A processor that cools down by a degree a second, and a clock that goes while one sleeps."""

    def __init__(self, celsius: float | None, *, step_c: float = 1.0) -> None:
        self.celsius = celsius
        self.step_c = step_c
        self.now_s = 1000.0
        self.heard: list[float] = []

    def read(self) -> float | None:
        return self.celsius

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.celsius is not None:
            self.celsius -= self.step_c * seconds

    def wait(self, cool_to_c: float, limit_s: float) -> Cooled:
        return cooling.wait(
            cool_to_c,
            limit_s=limit_s,
            temperature_c=self.read,
            on_wait=self.heard.append,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )


def test_a_warm_processor_is_waited_for_and_every_moment_is_told() -> None:
    room = FakeRoom(58.0)

    assert Cooled(seconds=3.0, temperature_c=55.0, reached=True) == room.wait(55.0, 300.0)
    assert [58.0, 57.0, 56.0] == room.heard


def test_a_cool_one_is_not_waited_for() -> None:
    assert Cooled(seconds=0.0, temperature_c=40.0, reached=True) == FakeRoom(40.0).wait(55.0, 300.0)


def test_waiting_has_an_end() -> None:
    room = FakeRoom(70.0, step_c=0.0)

    assert Cooled(seconds=2.5, temperature_c=70.0, reached=False) == room.wait(55.0, 2.5)


def test_without_a_sensor_there_is_nothing_to_wait_for() -> None:
    assert Cooled(seconds=0.0, temperature_c=None, reached=False) == FakeRoom(None).wait(55.0, 300.0)


def test_the_boards_quotas_are_found() -> None:
    assert {"pi4": 0, "container": 1_834_120} == {
        name: us for name in NAMES if (us := quota.stopped_us(BOARDS / name)) is not None
    }
