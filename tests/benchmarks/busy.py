"""How much of this machine others use while something is measured: figures of a busy machine are no claim."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

#: Beyond so many cores used by others, a figure of microseconds says more about them than about us.
LIMIT_CORES = 0.3
_MOMENT_S = 0.5
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_IDLE = slice(3, 5)
#: utime, stime, cutime, cstime of proc(5), after the name.
_TIMES = slice(11, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """Cores that processes which are not ours kept busy, the hypervisor's other guests included."""

    cores: float
    load: float

    @property
    def too_busy(self) -> bool:
        """Whether nothing can be judged."""
        return self.cores > LIMIT_CORES

    def __str__(self) -> str:
        return f"machine busy: others use {self.cores:.1f} cores, load {self.load:.1f}"


class Watch:
    """Counts from now on; `others` is to be asked while what runs of ours runs, or was waited for."""

    def __init__(self) -> None:
        self._began = (time.monotonic(), _busy_s(), _ours_s(os.getpid()))

    def others(self) -> Others:
        """Return what others used since then."""
        began, busy, ours = self._began
        took_s = time.monotonic() - began
        used_s = (_busy_s() - busy) - (_ours_s(os.getpid()) - ours)
        return Others(cores=max(0.0, used_s / took_s), load=os.getloadavg()[0])


def now() -> Others:
    """Return what others use, over half a second."""
    watch = Watch()
    time.sleep(_MOMENT_S)
    return watch.others()


def wait_for_quiet(patience_s: float) -> None:
    """Return when others leave the machine alone for a moment, or when patience is over."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not now().too_busy:
            return


def _busy_s() -> float:
    # user nice system idle iowait irq softirq steal; guests are counted as users already.
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - sum(fields[_IDLE])) * _TICK_S


def _ours_s(pid: int) -> float:
    """Return the processor time of a process and what it started, what has ended and was waited for included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[_TIMES]) * _TICK_S + sum(_ours_s(child) for child in children)
