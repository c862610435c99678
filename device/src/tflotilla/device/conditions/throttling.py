"""What the firmware of a Raspberry Pi says of its power and heat: `get_throttled`'s bits.

Bits 0..3 are now, 16..19 the same since boot (Raspberry Pi's documentation of `vcgencmd get_throttled`). The ways to
them, best first: the firmware's mailbox (microseconds); the program, which costs a process; the kernel's file
`get_throttled`, with what its driver heard last, which is gone from newer kernels and always 0 on some; the driver's
alarm, which knows under-voltage alone: one that is off says nothing of the other bits, so it is no reading.
x86 has counters instead, which is `events`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from tflotilla.device.conditions import files, mailbox

if TYPE_CHECKING:
    from pathlib import Path

#: What each bit means, now; the same sixteen bits higher: since boot.
MEANING = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
NOW = 0xF
BOOT_SHIFT = 16
#: Where Raspberry Pi OS (and what is built like it) has the program.
PROGRAMS = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd", "bin/vcgencmd")
UNDER_VOLTAGE = 0x1
_ANSWER = re.compile(r"throttled=0x([0-9a-fA-F]{1,8})\s*")
_TIMEOUT_S = 2.0
_MOST = 0xFFFFFFFF
_MOST_EVENTS = 1 << 62


def names(bits: int) -> str:
    """Return what is set among the bits that mean "now", in words."""
    return ", ".join(word for bit, word in MEANING.items() if bits >> bit & 1)


def events(root: Path) -> int | None:
    """Return how often x86 cores were slowed down for heat since boot; None where nobody counts."""
    counters = files.listed(root / "sys/devices/system/cpu", "cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [files.whole(counter, least=0, most=_MOST_EVENTS) for counter in counters]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


class Throttling:
    """Where one board has the bits; looked up once."""

    def __init__(self, root: Path) -> None:
        # Pi 3 and 4: soc/soc:firmware; Pi 5: soc@107c000000/soc@107c000000:firmware.
        self._file = next(iter(files.listed(root / "sys/devices/platform", "soc*/soc*:firmware/get_throttled")), None)
        alarms = (
            chip / "in0_lcrit_alarm"
            for chip in files.listed(root / "sys/class/hwmon", "hwmon*")
            if files.word(chip / "name") == "rpi_volt"
        )
        self._root = root
        self._alarm = next(alarms, None)
        programs = (root / name for name in PROGRAMS)
        self._program = next((program for program in programs if os.access(program, os.X_OK)), None)
        #: Whether the firmware itself answered the last time, not the kernel from what it heard before.
        self.from_firmware = False

    def read(self) -> int | None:
        """Return the bits without starting a program; None when neither firmware nor kernel tells them."""
        bits = mailbox.throttled(self._root)
        self.from_firmware = bits is not None
        if bits is None and self._file:
            bits = files.whole(self._file, least=0, most=_MOST, base=16)
        alarm = files.whole(self._alarm, least=0, most=1) if self._alarm else None
        return (bits or 0) | UNDER_VOLTAGE if alarm else bits

    def ask(self) -> int | None:
        """Return the bits as the firmware knows them, in milliseconds, else as the kernel does, else None."""
        known = self.read()
        if self.from_firmware or self._program is None:
            return known
        # Only where it is needed: this process' memory is measured.
        import subprocess

        try:
            done = subprocess.run(
                [self._program, "get_throttled"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return known
        answer = _ANSWER.fullmatch(done.stdout.decode(errors="replace").lstrip())
        # "VCHI initialization failed": the user is not in the group `video`.
        if answer is None:
            return known
        self.from_firmware = True
        return int(answer[1], 16) | (known or 0) & UNDER_VOLTAGE
