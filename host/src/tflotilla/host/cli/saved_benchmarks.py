"""Where a command finds a benchmark that a user named: in a file, else in the fleet's history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import Run

#: What a result file ends in; such a name is never looked for in the history.
_SUFFIX = ".json"


def load(reference: str, fleet: Path | None) -> Run:
    """Return the run of a result file, or the saved one of that name or id.

    Raises:
        InputError: there is none, or it can't be read.

    """
    from tflotilla.host.benchmarks import results
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.fleet.inventory import Fleet

    path = Path(reference)
    if path.is_file() or path.suffix.lower() == _SUFFIX or len(path.parts) > 1:
        return results.read(path)
    try:
        state = Fleet.load(fleet).state
    except ConfigError as error:
        if fleet is not None:
            raise
        raise InputError(f"{reference} is no result file, and no fleet's history is here: {error}") from error
    return History(state / FILE).find(reference)
