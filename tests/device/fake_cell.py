"""A child that should measure a cell and behaves as told: `python -m tests.device.fake_cell`, CellSpec in, lines out.

The configuration's batch says which of `BEHAVIOURS` it is, counted from 1: cells of one request can differ in it.
`waits` waits until the file `go` stands beside the bundle's folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.device import cells_made
from tests.device.agents import ROOT
from tflotilla.device import child, reports
from tflotilla.device.children import Child
from tflotilla.device.reports import CellSpec, Phase
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from tflotilla.shared.contract.benchmark import Configuration

BEHAVIOURS = (
    "measures",
    "crashes",
    "hangs",
    "hangs in its delegate",
    "crashes in its delegate",
    "lacks memory",
    "is killed",
    "ends early",
    "babbles",
    "speaks of something else",
    "outgrows its limit",
    "finds the disk full",
    "crashes when done",
    "waits",
)
_SHORT_S = 0.2


def configuration(behaviour: str, *, delegate: str | None = None) -> Configuration:
    """Return a configuration whose cell behaves like that."""
    return cells_made.configuration(BEHAVIOURS.index(behaviour) + 1, delegate=delegate)


async def start(spec: CellSpec) -> Child:
    """Start it in place of the child that measures."""
    command = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.device.fake_cell")
    return await Child.launch(command, "benchmark", spec)


def main() -> int:
    """Behave."""
    channel = child.claim_stdout()
    child.die_with_parent()
    spec = child.read_spec(CellSpec)
    behaviour = BEHAVIOURS[spec.configuration.batch - 1]

    def say(kind: bytes, body: object) -> None:
        child.write_all(channel, kind + codec.canonical_json(body) + b"\n")

    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    say(reports.PHASE, Phase(doing="loading", at_most_s=60.0))
    if behaviour in ("measures", "crashes when done", "outgrows its limit"):
        if behaviour == "outgrows its limit":
            time.sleep(60)
        say(reports.CELL, cells_made.measured(spec.configuration))
    if "crashes" in behaviour and "delegate" not in behaviour:
        crash()
    elif behaviour == "hangs":
        say(reports.PHASE, Phase(doing="warming up", at_most_s=_SHORT_S))
        time.sleep(60)
    elif behaviour == "hangs in its delegate":
        say(reports.PHASE, Phase(doing="loading the delegate", at_most_s=_SHORT_S))
        time.sleep(60)
    elif behaviour == "crashes in its delegate":
        say(reports.PHASE, Phase(doing="loading the delegate", at_most_s=60.0))
        crash()
    elif behaviour == "lacks memory":
        sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
        sys.stderr.flush()
        os.abort()
    elif behaviour == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour == "ends early":
        sys.stderr.write("nothing to be done\n")
        return 5
    elif behaviour == "babbles":
        child.write_all(channel, b"hello\n")
    elif behaviour == "speaks of something else":
        say(b"M", {"count": 1})
    elif behaviour == "finds the disk full":
        sys.stderr.write("OSError: [Errno 28] No space left on device\n")
        return 1
    elif behaviour == "waits":
        go = Path(spec.bundle).parent / "go"
        while not go.exists():
            time.sleep(0.01)
        say(reports.CELL, cells_made.measured(spec.configuration))
    return 0


if __name__ == "__main__":
    sys.exit(main())
