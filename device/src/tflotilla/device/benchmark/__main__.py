"""The child that measures one cell: `python -m tflotilla.device.benchmark`, CellSpec in, BenchmarkCell out.

Before each step an `S` line says what begins and after how long it must be hanging; the `C` line is the last one.
A fresh process per cell: runtimes keep thread pools and caches.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tflotilla.device import child, reports
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from tflotilla.device.reports import Phase


def main() -> int:
    """Answer one CellSpec; return the exit code."""
    channel = child.claim_stdout()
    child.die_with_parent()

    def write(kind: bytes, value: object) -> None:
        child.write_all(channel, kind + codec.canonical_json(value) + b"\n")

    def say(phase: Phase) -> None:
        write(reports.PHASE, phase)

    try:
        spec = child.read_spec(reports.CellSpec)
        # Here, so that numpy and the runtime are not imported before that is timed.
        from tflotilla.device.benchmark import cell

        write(reports.CELL, cell.measure(spec, say))
    except ContractError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:
        # Whoever asked is gone; the answer interests nobody.
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
