"""Where training stood, in one file that appears whole or not at all: `training.npz` in the user's folder.

Rules it keeps: a checkpoint is only taken up by the training that it is of, with the same source, data and options;
what differs is named. What it does NOT do: know Keras; it holds arrays in an order that the trainer repeats.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tflotilla.host.models import delivery
from tflotilla.shared.contract.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "training.npz"
_STATE = "state"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Arrays in the trainer's order, and what else it needs to go on, as JSON."""

    arrays: tuple[NDArray[Any], ...]
    progress: Mapping[str, Any]


def save(
    folder: Path, arrays: Sequence[NDArray[Any]], progress: Mapping[str, Any], identity: Mapping[str, Any]
) -> None:
    """Write a checkpoint over the last one.

    Raises:
        InputError: it can't be written (a full disk); the last one stays.

    """
    state = json.dumps({"version": _VERSION, "identity": identity, "progress": progress}, sort_keys=True)
    file = io.BytesIO()
    named = {f"a{number:05}": array for number, array in enumerate(arrays)}
    np.savez(file, **{_STATE: np.frombuffer(state.encode(), dtype=np.uint8)}, **named)
    delivery.deliver(file.getvalue(), folder / FILE)


def load(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read the folder's checkpoint; None when there is none.

    Raises:
        InputError: it can't be read.
        UsageError: it is of another training; says what differs.

    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = json.loads(archive[_STATE].tobytes())
            arrays = tuple(archive[name] for name in sorted(archive.files) if name != _STATE)
        found, progress = state["identity"], state["progress"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a checkpoint that can be read; remove it to begin anew") from error
    differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
    if state.get("version") != _VERSION or differing:
        what = ", ".join(differing) or "the version of tflotilla"
        raise UsageError(
            f"{path} is of another training: {what} differed; give another --checkpoint folder, or remove the file"
        )
    return Checkpoint(arrays=arrays, progress=progress)
