"""Tools that can't live beside TensorFlow 2.21, each in an environment of its own, made only when it is asked for.

Rules it keeps: an environment is named by its lock and this Python, so that another version never runs by accident; it
counts as installed when it is complete. What it does NOT do: install anything unasked.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tflotilla.host.packages import locks, uv
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import InputError, UsageError

#: Where the environments lie; `~/.local/share/tflotilla-tools` without it.
VARIABLE = "TFLOTILLA_TOOLS"
_READY = ".ready"
_NAME_LENGTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool."""

    name: str
    #: The lock: `requirements/LOCK.txt`.
    lock: str
    purpose: str
    #: On disk, roughly.
    size_gib: float


TOOLS = {
    "onnx": Tool(
        name="onnx", lock="tool-onnx", purpose="onnx2tf and ONNX Runtime, to convert .onnx files", size_gib=2.4
    )
}


def find(name: str) -> Tool:
    """Return a tool by its name. Raises UsageError."""
    if name not in TOOLS:
        raise UsageError(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
    return TOOLS[name]


def folder() -> Path:
    """Return the folder of all environments."""
    given = os.environ.get(VARIABLE)
    return Path(given).absolute() if given else Path.home() / ".local" / "share" / "tflotilla-tools"


def place(tool: Tool) -> Path:
    """Return where a tool's environment is or would be. Raises InputError: the lock is missing."""
    recipe = f"{digest.of_file(locks.find(tool.lock))} {sys.version_info[:2]}"
    return folder() / f"{tool.name}-{digest.of_bytes(recipe.encode())[:_NAME_LENGTH]}"


def python(tool: Tool) -> Path | None:
    """Return the interpreter of a tool's environment, None when it isn't installed."""
    found = place(tool)
    return found / "bin" / "python" if (found / _READY).is_file() else None


def install(tool: Tool) -> Path:
    """Make a tool's environment unless it is there; older ones of the same tool go. Return its interpreter.

    Raises:
        InputError: it can't be built or written, in one line.

    """
    there = python(tool)
    if there is not None:
        return there
    target = place(tool)
    try:
        remove(tool)
        uv.create_environment(target, locks.find(tool.lock), name=tool.name, failure=InputError)
        (target / _READY).touch()
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror or error} (set ${VARIABLE})") from error
    finally:
        # Half an environment is of no use, and large.
        if not (target / _READY).is_file():
            shutil.rmtree(target, ignore_errors=True)
    return target / "bin" / "python"


def remove(tool: Tool) -> bool:
    """Remove every environment of a tool; return whether there was one."""
    found = list(folder().glob(f"{tool.name}-*"))
    for path in found:
        shutil.rmtree(path)
    return bool(found)
