"""Where a case works: a folder for what it makes, the real data it may use, and somebody to tell how far it is.

Real data are found by their files' names anywhere below one folder, so that it can be laid out as anyone likes. What it
does NOT do: download.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tflotilla.shared.contract.errors import DatasetError, UsageError

#: The folder of real data, when `--data` doesn't name it.
VARIABLE = "TFLOTILLA_DATA"


def _say_nothing(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One run's place to work."""

    folder: Path
    data: Path | None
    say: Callable[[str], None] = field(default=_say_nothing)

    def find(self, name: str) -> Path:
        """Return the first file or folder below the data that is called so (a glob).

        Raises:
            UsageError: no data are given.
            DatasetError: they hold no such file.

        """
        if self.data is None:
            raise UsageError(f"this case needs {name}; say in which folder with --data (or ${VARIABLE})")
        found = sorted(self.data.rglob(name))
        if not found:
            raise DatasetError(f"{self.data}: holds no {name}, which this case needs")
        return found[0]

    def finds(self, name: str) -> bool:
        """Whether `find` would."""
        return self.data is not None and any(True for _ in self.data.rglob(name))

    def made(self, name: str) -> Path:
        """Return the path of something that cases make and share."""
        return self.folder / name


def data_folder(given: Path | None) -> Path | None:
    """Return the folder of real data: as given, or as the environment says; None without both. Raises DatasetError."""
    if given is None and VARIABLE in os.environ:
        given = Path(os.environ[VARIABLE])
    if given is not None and not given.is_dir():
        raise DatasetError(f"{given}: there is no such folder of data")
    return given
