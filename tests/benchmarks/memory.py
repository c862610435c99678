"""What supervisor and worker weigh together, serving a tiny model and reporting to a real broker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import agents, models

MIB = 1 << 20
LIMIT_BYTES = 90 * MIB
#: Long enough for windows to be reported and the state to be told.
_SETTLE_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident bytes; PSS counts a page that several processes share by its part, so that sums mean something."""

    runtime: str
    supervisor_rss: int
    worker_rss: int
    supervisor_pss: int
    worker_pss: int

    @property
    def rss(self) -> int:
        """The sum that people see in `ps`; shared libraries count twice."""
        return self.supervisor_rss + self.worker_rss

    @property
    def pss(self) -> int:
        """The sum that the board's memory pays."""
        return self.supervisor_pss + self.worker_pss

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.rss < LIMIT_BYTES


def measure(folder: Path, runtime: str) -> Memory:
    """Run an agent at ten inferences a second for a while and look at both processes."""
    data = models.TINY.read()
    if data is None:
        raise RuntimeError("the tests' own model is missing")
    folder.mkdir(parents=True)
    bundle = models.write_bundle(folder / "bundle", data, runtime)
    with (
        agents.broker(folder / "broker") as port,
        agents.serving(folder, bundle, runtime=runtime, port=port, interval_ms=100) as agent,
    ):
        time.sleep(_SETTLE_S)
        supervisor, worker = _weigh(agent.pid), _weigh(agent.worker_pid())
    return Memory(
        runtime=runtime,
        supervisor_rss=supervisor["Rss"],
        worker_rss=worker["Rss"],
        supervisor_pss=supervisor["Pss"],
        worker_pss=worker["Pss"],
    )


def _weigh(pid: int) -> dict[str, int]:
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in ("Rss", "Pss"):
            sizes[key] = int(rest.split()[0]) * 1024
    return sizes
