"""The child that measures one cell: `python -m tflotilla.device.benchmark`, CellSpec in, BenchmarkCell out.

Before each step an `S` line says what begins and after how long it must be hanging; the `C` line is the last one.
A fresh process per cell: runtimes keep thread pools and caches.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tflotilla.device import child, reports

if TYPE_CHECKING:
    from tflotilla.device.child import Write


def main() -> int:
    """Answer one CellSpec; return the exit code."""
    return child.answer_in_lines(reports.CellSpec, _measure)


def _measure(spec: reports.CellSpec, write: Write) -> None:
    # Here, so that numpy and the runtime are not imported before that is timed.
    from tflotilla.device.benchmark import cell

    write(reports.CELL, cell.measure(spec, lambda phase: write(reports.PHASE, phase)))


if __name__ == "__main__":
    sys.exit(main())
