"""Where a command finds a benchmark that a user named: in a file, else in the fleet's history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import Run

#: What a result file ends in; such a name is never looked for in the history.
_SUFFIX = ".json"


def load(reference: str, fleet: Path | None) -> Run:
    """Return the run of a result file, or the saved one of that name or id.

    Raises:
        InputError: there is none, or it can't be read.
        ConfigError: the fleet whose history is to be looked into can't be read.

    """
    from tflotilla.host.benchmarks import results
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.fleet.inventory.fleet import Fleet, locate

    path = Path(reference)
    if path.is_file() or path.suffix.lower() == _SUFFIX or len(path.parts) != 1:
        return results.read(path)
    file = locate(fleet)
    if fleet is None and not file.exists():
        raise InputError(f"{reference} is neither a result file nor a saved benchmark: there is no fleet file {file}")
    return History(Fleet.load(file).state / FILE).find(reference)
