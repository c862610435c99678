"""The board at one moment: temperature, frequencies, governor, throttling, cooling, load and memory.

Rules it keeps: sensors are looked up once and then read by path, as this happens between timed runs; a fan is no
cooling device here, for it slows nothing down; what a board can't tell is None, never a default.
What it does NOT do: judge, or watch over time. On a Raspberry Pi the kernel reports the frequency that it asked for;
that the firmware gave less shows in the throttling bits alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tflotilla.device import facts
from tflotilla.device.conditions import files
from tflotilla.device.conditions.throttling import NOW, Throttling
from tflotilla.shared.contract.benchmark import BoardReading

if TYPE_CHECKING:
    from pathlib import Path

ROOT = facts.ROOT
#: Cooling devices that slow the processor down, by the kernel's names; `pwm-fan` and `gpio-fan` are none.
_SLOWING = re.compile(
    r"(?:thermal-)?cpufreq|processor|intel_powerclamp|(?:thermal-)?cpuidle|thermal-idle", re.IGNORECASE
)
_MOST_CORES = 1024
_MOST_KHZ = 20_000_000
_MOST_STATE = 1_000_000
_MOST_KIB = 1 << 42
_MOST_LOAD = 1e6
_MEMORY = frozenset({"MemAvailable", "SwapTotal", "SwapFree"})


class Sensors:
    """Where one board's sensors are."""

    def __init__(self, root: Path = ROOT) -> None:
        self._zones = facts.thermal_zones(root)
        self._frequencies = _frequency_files(root)
        governors = (path.with_name("scaling_governor") for path in self._frequencies if path)
        self._governor = next(governors, None)
        self._throttling = Throttling(root)
        self._cooling = tuple(
            device / "cur_state"
            for device in files.listed(root / "sys/class/thermal", "cooling_device*")
            if _SLOWING.match(files.word(device / "type") or "")
        )
        self._loadavg = root / "proc/loadavg"
        self._meminfo = root / "proc/meminfo"

    def read(self, *, at_s: float, ask_firmware: bool = False) -> BoardReading:
        """Return the board now; `ask_firmware` may start a program, which is nothing to do between timed runs.

        Frequencies come first: the longer one looks, the more a governor has already slowed the processor down.
        """
        frequencies = self._read_frequencies()
        temperatures = (facts.zone_celsius(zone) for zone in self._zones)
        memory = _memory(files.text(self._meminfo))
        return BoardReading(
            at_s=at_s,
            frequencies_khz=frequencies,
            temperature_c=next((celsius for celsius in temperatures if celsius is not None), None),
            governor=files.word(self._governor) if self._governor else None,
            throttled=self._throttling.ask() if ask_firmware else self._throttling.read(),
            cooling=self._read_cooling(),
            load_1min=_load(files.text(self._loadavg)),
            swap_used_bytes=_swap_used(memory),
            memory_available_bytes=memory.get("MemAvailable"),
        )

    def temperature_c(self) -> float | None:
        """Return the processor's temperature alone."""
        temperatures = (facts.zone_celsius(zone) for zone in self._zones)
        return next((celsius for celsius in temperatures if celsius is not None), None)

    def slowed_down(self) -> bool | None:
        """Return whether heat or power slows this board down now; None where neither firmware nor kernel tells.

        No program is started, nothing is kept from before: what was since boot is not now.
        """
        bits, cooling = self._throttling.read(), self._read_cooling()
        if bits is None and cooling is None:
            return None
        return bool((bits or 0) & NOW or cooling)

    def ask_firmware(self) -> int | None:
        """Return the throttling bits alone, from the firmware where it can be asked; milliseconds."""
        return self._throttling.ask()

    @property
    def firmware_answered(self) -> bool:
        """Whether the last throttling bits are the firmware's own."""
        return self._throttling.from_firmware

    def _read_frequencies(self) -> tuple[int, ...]:
        """Return kHz by core number, 0 for one that is switched off; nothing when no core tells."""
        # Cores share a clock, and its file: it is read once.
        read = {path: files.whole(path, least=1, most=_MOST_KHZ) for path in set(self._frequencies) if path}
        found = tuple((read[path] or 0) if path else 0 for path in self._frequencies)
        return found if any(found) else ()

    def _read_cooling(self) -> int | None:
        # intel_powerclamp's -1 is "idle".
        states = [files.whole(path, least=-1, most=_MOST_STATE) for path in self._cooling]
        known = [max(0, state) for state in states if state is not None]
        return max(known, default=None)


def read(root: Path = ROOT, *, at_s: float, ask_firmware: bool = False) -> BoardReading:
    """Return the board now, for one who reads it once; `at_s` is the reading's time."""
    return Sensors(root).read(at_s=at_s, ask_firmware=ask_firmware)


def _frequency_files(root: Path) -> tuple[Path | None, ...]:
    """Return each core's file, by the number of the core; None for one without."""
    found = {}
    for core in files.listed(root / "sys/devices/system/cpu", "cpu[0-9]*"):
        number = files.number(core.name[len("cpu") :], least=0, most=_MOST_CORES)
        try:
            path = (core / "cpufreq").resolve() / "scaling_cur_freq"
            present = path.is_file()
        except (OSError, RuntimeError):  # a loop of links
            continue
        if number is not None and present:
            found[number] = path
    return tuple(found.get(number) for number in range(max(found, default=-1) + 1))


def _memory(text: str | None) -> dict[str, int]:
    """Return what is needed of `/proc/meminfo`, in bytes."""
    found = {}
    for line in (text or "").splitlines():
        key, _, rest = line.partition(":")
        # Of fifty lines; this is read between timed runs.
        words = rest.split() if key in _MEMORY else ()
        value = files.number(words[0], least=0, most=_MOST_KIB) if words else None
        if value is not None:
            found[key] = value * 1024
    return found


def _swap_used(memory: dict[str, int]) -> int | None:
    total, free = memory.get("SwapTotal"), memory.get("SwapFree")
    return max(0, total - free) if total is not None and free is not None else None


def _load(text: str | None) -> float | None:
    words = (text or "").split()
    if not words or not re.fullmatch(r"[0-9]{1,7}(?:\.[0-9]{1,6})?", words[0], re.ASCII):
        return None
    load = float(words[0])
    return load if load <= _MOST_LOAD else None
