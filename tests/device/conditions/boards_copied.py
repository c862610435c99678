"""Boards' files to read, and copies of them to change.

What this module does NOT do: know what the files mean.
"""

from __future__ import annotations

import shutil
from pathlib import Path

BOARDS = Path(__file__).parent / "boards"
NAMES = ("container", "laptop", "no_sensors", "pi3", "pi4", "pi5", "rock5")


def copy(name: str, target: Path) -> Path:
    """Copy one board's files below `target`, links as links; return where its root is."""
    return Path(shutil.copytree(BOARDS / name, target / name, symlinks=True))


def set_process(
    root: Path, pid: int, name: str, *, parent: int = 1, user: int = 0, started: int = 100, ended: int = 0
) -> None:
    """Put a process into a tree, or change what it and its ended children have taken, in ticks."""
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    times = f"{user} 0 {ended} 0"
    (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 0 9 9 9 9 {times} 20 0 1 0 {started} 1 1 1\n")


def set_busy(root: Path, ticks: int) -> None:
    """Say what all processors were busy, and much idling beside it."""
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {ticks} 0 0 999999 88888 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nctxt 5\n")
