"""Where the lock files lie: package data of an installed wheel, or the workspace's `requirements/`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tflotilla.shared.contract.errors import InputError


def find(name: str) -> Path:
    """Return `requirements/NAME.txt`. Raises InputError."""
    packaged = Path(str(resources.files("tflotilla.host") / "requirements"))
    workspace = Path(__file__).resolve().parents[5] / "requirements"
    for folder in (packaged, workspace):
        path = folder / f"{name}.txt"
        if path.is_file():
            return path
    message = f"{name}.txt is missing in {packaged}; install tflotilla again"
    raise InputError(message)
