"""What is read from each board's files, and that nothing in them can hurt."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.device.conditions.boards_copied import BOARDS, NAMES, copy
from tflotilla.device.conditions import files, identity, memory, processes, quota, readings, throttling
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import BoardReading, ProcessLoad

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = {
    "pi3": BoardReading(
        at_s=1.5,
        temperature_c=62.838,
        frequencies_khz=(600_000,) * 4,
        governor="ondemand",
        throttled=0x50005,
        load_1min=1.91,
        swap_used_bytes=20 << 20,
        memory_available_bytes=371_044 * 1024,
    ),
    "pi4": BoardReading(
        at_s=1.5,
        temperature_c=48.312,
        frequencies_khz=(1_800_000,) * 4,
        governor="performance",
        throttled=0,
        load_1min=0.23,
        swap_used_bytes=0,
        memory_available_bytes=3_301_220 * 1024,
    ),
    "pi5": BoardReading(
        at_s=1.5,
        temperature_c=61.15,
        frequencies_khz=(2_400_000,) * 4,
        governor="ondemand",
        throttled=0xE0000,
        load_1min=0.08,
        swap_used_bytes=0,
        memory_available_bytes=7_321_056 * 1024,
    ),
    "rock5": BoardReading(
        at_s=1.5,
        temperature_c=84.461,
        frequencies_khz=(1_800_000,) * 4 + (1_608_000,) * 4,
        governor="schedutil",
        cooling=3,
        load_1min=4.52,
        swap_used_bytes=0,
        memory_available_bytes=6_321_056 * 1024,
    ),
    "laptop": BoardReading(
        at_s=1.5,
        temperature_c=51.0,
        frequencies_khz=(3_591_204, 800_012, 1_204_413, 799_983),
        governor="powersave",
        cooling=0,
        load_1min=0.52,
        swap_used_bytes=(8_388_604 - 8_120_000) * 1024,
        memory_available_bytes=9_321_056 * 1024,
    ),
    "no_sensors": BoardReading(at_s=1.5, load_1min=0.0, swap_used_bytes=0, memory_available_bytes=1_788_112 * 1024),
    "container": BoardReading(at_s=1.5, load_1min=0.0, memory_available_bytes=1_788_112 * 1024),
}
GARBAGE = (
    b"",
    b"\n\n",
    b"\xff\xfe\x00 \x80garbage\n",
    b"9" * 6000,
    b"-1\n",
    b"1e400\n",
    b"MemTotal: x kB\nSwapTotal:\nSwapFree: -4 kB\npswpin nan\ncpu  1 2\n",
    "٣٤٥\n".encode(),
    b"7 (a) S 1 1\n",
    b"Revision\t: zzzz\n",
)


@pytest.mark.parametrize("name", NAMES)
def test_each_board_is_read_as_it_is(name: str) -> None:
    assert EXPECTED[name] == readings.read(BOARDS / name, at_s=1.5, ask_firmware=True)


@pytest.mark.parametrize("name", NAMES)
def test_readings_travel(name: str) -> None:
    reading = readings.read(BOARDS / name, at_s=-3.25)

    document = codec.parse_json(codec.canonical_json(reading), "reading")

    assert reading == codec.decode(BoardReading, document, "reading")


def _read_all(root: Path) -> None:
    reading = readings.read(root, at_s=0.0, ask_firmware=True)
    codec.canonical_json(reading)
    assert reading.throttled is None or 0 <= reading.throttled <= 0xFFFFFFFF
    assert all(0 <= khz <= 20_000_000 for khz in reading.frequencies_khz)
    assert reading.temperature_c is None or -40 <= reading.temperature_c <= 150
    assert reading.governor is None or reading.governor.isprintable()
    before = processes.snapshot(root, clock=lambda: 0)
    after = processes.snapshot(root, clock=lambda: 1_000_000_000)
    assert processes.between(before, after, frozenset({1}))[0] == ()
    processes.named([ProcessLoad(name="python3", pid=640, cpu_percent=1.0)], root)
    quota.stopped_us(root)
    identity.read(root)
    memory.oom_kills(root)
    memory.pages_swapped(root)
    throttling.events(root)


@pytest.mark.parametrize("name", NAMES)
def test_garbage_in_all_files_at_once_is_survived(name: str, tmp_path: Path) -> None:
    root = copy(name, tmp_path)
    paths = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(paths) >= 5

    for garbage in GARBAGE:
        for path in paths:
            path.write_bytes(garbage)
        _read_all(root)


@pytest.mark.parametrize("name", NAMES)
def test_garbage_in_any_one_file_is_survived(name: str, tmp_path: Path) -> None:
    root = copy(name, tmp_path)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())

    for number, path in enumerate(paths):
        whole = path.read_bytes()
        path.write_bytes(GARBAGE[number % len(GARBAGE)])
        _read_all(root)
        path.write_bytes(whole)

    assert EXPECTED[name] == readings.read(root, at_s=1.5, ask_firmware=True)


def test_folders_pipes_and_loops_in_place_of_files_are_survived(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    for place in ("proc/meminfo", "sys/devices/virtual/thermal/thermal_zone0/temp"):
        (root / place).unlink()
        (root / place).mkdir()
    (root / "proc/loadavg").unlink()
    os.mkfifo(root / "proc/loadavg")
    core = root / "sys/devices/system/cpu/cpu2/cpufreq"
    core.unlink()
    core.symlink_to("cpufreq")

    reading = readings.read(root, at_s=0.0)

    assert (None, None, None) == (reading.temperature_c, reading.load_1min, reading.memory_available_bytes)
    assert (1_800_000, 1_800_000, 0, 1_800_000) == reading.frequencies_khz


def test_a_core_that_is_switched_off_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    root = copy("laptop", tmp_path)
    (root / "sys/devices/system/cpu/cpu1/cpufreq").unlink()

    assert (3_591_204, 0, 1_204_413, 799_983) == readings.read(root, at_s=0.0).frequencies_khz


def test_ten_cores_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Names sort cpu10 before cpu2."""
    for core in range(11):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{1000 + core}\n")

    assert tuple(range(1000, 1011)) == readings.read(tmp_path, at_s=0.0).frequencies_khz


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("thermal-cpufreq-0", "2", 2),
        ("cpufreq-cpu0", "1", 1),
        ("Processor", "0", 0),
        ("intel_powerclamp", "-1", 0),
        ("pwm-fan", "4", None),
        ("gpio-fan", "1", None),
        ("fb000000.gpu", "1", None),
        ("iwlwifi_1", "3", None),
    ],
)
def test_only_what_slows_the_processor_down_is_cooling(
    kind: str, state: str, expected: int | None, tmp_path: Path
) -> None:
    folder = tmp_path / "sys/class/thermal/cooling_device0"
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "cur_state").write_text(f"{state}\n")

    assert expected == readings.read(tmp_path, at_s=0.0).cooling


@pytest.mark.parametrize(
    ("board", "expected"),
    [("pi3", True), ("pi4", False), ("pi5", None), ("rock5", True), ("laptop", False)],
)
def test_a_board_is_slowed_down_or_not(*, board: str, expected: bool | None, tmp_path: Path) -> None:
    """A Pi 3 that is throttled now, a Pi 5 that only a program could ask, a Rock 5 whose kernel cools it."""
    assert expected is readings.Sensors(copy(board, tmp_path)).slowed_down()


@pytest.mark.parametrize(
    ("bits", "cooling", "expected"),
    [
        (None, None, None),
        ("0", None, False),
        ("1", None, True),
        ("8", None, True),
        ("f0000", None, False),
        ("50005", None, True),
        (None, "0", False),
        (None, "2", True),
        ("0", "1", True),
        ("garbage", "-1", False),
        ("garbage", None, None),
    ],
)
def test_firmware_and_kernel_say_whether_a_board_is_slowed_down(
    *, bits: str | None, cooling: str | None, expected: bool | None, tmp_path: Path
) -> None:
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware"
    device = tmp_path / "sys/class/thermal/cooling_device0"
    for folder in (firmware, device):
        folder.mkdir(parents=True)
    if bits is not None:
        (firmware / "get_throttled").write_text(f"{bits}\n")
    if cooling is not None:
        (device / "type").write_text("thermal-cpufreq-0\n")
        (device / "cur_state").write_text(f"{cooling}\n")

    assert expected is readings.Sensors(tmp_path).slowed_down()


def test_a_sensor_that_comes_late_is_read_by_the_next_who_looks_for_it(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    shutil.move(root / "sys/class/thermal", tmp_path / "aside")
    assert readings.Sensors(root).temperature_c() is None

    shutil.move(tmp_path / "aside", root / "sys/class/thermal")

    assert 48.312 == readings.Sensors(root).temperature_c()


def test_this_machine_can_be_read() -> None:
    reading = readings.read(at_s=0.0, ask_firmware=True)

    assert reading.memory_available_bytes
    assert reading.load_1min is not None


def test_a_file_without_an_end_is_read_to_a_limit() -> None:
    from pathlib import Path

    text = files.text(Path("/dev/zero"))

    assert text is not None
    assert len(text) == 1 << 18
