"""The firmware's bits: the mailbox, the program, the kernel's file and alarm, and which of them is believed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.device.conditions.boards_copied import BOARDS, copy
from tflotilla.device.conditions import mailbox, throttling
from tflotilla.device.conditions.throttling import Throttling

if TYPE_CHECKING:
    from pathlib import Path

FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
ALARM = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"


def _program(root: Path, script: str) -> None:
    program = root / "usr/bin/vcgencmd"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_every_bit_has_its_word() -> None:
    assert "under-voltage, throttled" == throttling.names(0x5)
    assert "under-voltage, frequency capped, throttled, soft temperature limit" == throttling.names(0xF)
    assert "" == throttling.names(0x50000)


def test_the_firmware_is_believed_against_the_kernel(tmp_path: Path) -> None:
    """Some kernels' file is always 0."""
    root = copy("pi4", tmp_path)
    _program(root, "echo throttled=0x80008")

    bits = Throttling(root)

    assert 0 == bits.read()
    assert not bits.from_firmware
    assert 0x80008 == bits.ask()
    assert bits.from_firmware


@pytest.mark.parametrize(
    "script",
    [
        "echo 'VCHI initialization failed'; exit 1",
        "echo 'Can'\"'\"'t open device file: /dev/vcio'; exit 255",
        "echo 'error=2 error_msg=\"Invalid arguments\"'",
        "echo throttled=0xZZ",
        "echo throttled=0x123456789",
        "exit 0",
        "kill -9 $$",
        "printf '\\377\\376'",
    ],
)
def test_a_program_that_may_not_ask_leaves_what_the_kernel_knows(script: str, tmp_path: Path) -> None:
    root = copy("pi3", tmp_path)
    _program(root, script)

    bits = Throttling(root)

    assert 0x50005 == bits.ask()
    assert not bits.from_firmware


def test_a_program_that_can_not_be_started_is_no_program(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    (root / "usr/bin/vcgencmd").write_bytes(b"\x7fELF")

    assert 0 == Throttling(root).ask()


def test_an_alarm_that_rings_is_under_voltage_and_a_silent_one_says_nothing(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    (root / FILE).unlink()
    (root / "usr/bin/vcgencmd").unlink()

    assert Throttling(root).read() is None
    (root / ALARM).write_text("1\n")
    assert 0x1 == Throttling(root).read()


def test_an_alarm_counts_beside_the_file(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    (root / ALARM).write_text("1\n")

    assert 0x1 == Throttling(root).read()
    assert 0x1 == Throttling(root).ask()


def test_another_chip_s_alarm_is_not_the_board_s(tmp_path: Path) -> None:
    root = copy("pi4", tmp_path)
    (root / FILE).unlink()
    (root / ALARM).write_text("1\n")
    (root / "sys/class/hwmon/hwmon1/name").write_text("ina219\n")

    assert Throttling(root).read() is None


def test_the_file_is_found_where_a_pi_5_would_have_it(tmp_path: Path) -> None:
    path = tmp_path / "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    path.parent.mkdir(parents=True)
    path.write_text("8000f\n")

    assert 0x8000F == Throttling(tmp_path).read()


def test_what_is_no_board_has_no_bits() -> None:
    assert Throttling(BOARDS / "laptop").ask() is None


def test_x86_counts_how_often_it_was_throttled() -> None:
    assert 0 + 1 + 2 + 3 + 4 * 7 == throttling.events(BOARDS / "laptop")
    assert throttling.events(BOARDS / "pi4") is None


def test_the_mailbox_is_asked_in_the_firmware_s_words(tmp_path: Path) -> None:
    """Seven words; the answer comes back in the same buffer. /dev/null stands for a device that answers elsewhere."""
    (tmp_path / "dev").mkdir()
    (tmp_path / mailbox.DEVICE).symlink_to("/dev/null")
    asked = []

    def answer(_handle: int, request: int, buffer: bytearray) -> int:
        asked.append((request, struct.unpack("=7I", buffer)))
        struct.pack_into("=7I", buffer, 0, 28, 0x80000000, 0x30046, 4, 0x80000004, 0x50005, 0)
        return 0

    assert 0x50005 == mailbox.throttled(tmp_path, ioctl=answer)
    assert [(mailbox.REQUEST, (28, 0, 0x30046, 4, 0, 0, 0))] == asked


def test_the_request_is_the_kernel_s() -> None:
    """_IOWR(100, 0, char *) of a 64-bit and of a 32-bit program."""
    assert {8: 0xC0086400, 4: 0xC0046400}[struct.calcsize("P")] == mailbox.REQUEST


@pytest.mark.parametrize(
    "words",
    [
        (28, 0x80000001, 0x30046, 4, 0x80000004, 1, 0),
        (28, 0x80000000, 0x30046, 4, 0, 1, 0),
        (28, 0x80000000, 0x30047, 4, 0x80000004, 1, 0),
        (28, 0, 0x30046, 4, 0, 0, 0),
    ],
)
def test_a_firmware_that_does_not_know_the_question_gives_no_bits(words: tuple[int, ...]) -> None:
    assert mailbox.answer(struct.pack("=7I", *words)) is None


def test_what_is_no_mailbox_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    assert mailbox.throttled(tmp_path) is None

    (tmp_path / mailbox.DEVICE).write_bytes(b"")
    assert mailbox.throttled(tmp_path) is None

    (tmp_path / mailbox.DEVICE).unlink()
    (tmp_path / mailbox.DEVICE).symlink_to("/dev/null")  # answers ENOTTY
    assert mailbox.throttled(tmp_path) is None
