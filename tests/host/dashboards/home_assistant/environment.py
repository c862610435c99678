"""Home Assistant in an environment of its own, made once and kept in the cache; its Python is not ours.

`python()` skips with a reason where it can't be made: no Python 3.12, no packages to be had.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: The last that runs on Python 3.12 without complaint, and the first months of device-based discovery.
VERSION = "2024.12.5"
#: What its MQTT integration would install by itself when it first starts.
_PAHO = "paho-mqtt==1.6.1"
_MAKING_S = 900


def python() -> Path:
    """Return the interpreter of the environment."""
    cache = Path(os.environ.get("TFLOTILLA_CACHE") or Path.home() / ".cache/tflotilla")
    folder = cache / "home-assistant" / VERSION
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Tests of several processes: one makes it, the others wait.
    with (folder.parent / f".{VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            _make(folder)
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    base = _python_3_12()
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if base is None or uv is None:
        pytest.skip("Home Assistant needs python3.12 and uv to be installed beside tflotilla")
    steps = (
        [uv, "venv", "--quiet", "--clear", "--python", str(base), str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), f"homeassistant=={VERSION}", _PAHO],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, timeout=_MAKING_S, check=False)
        if done.returncode != 0:
            pytest.skip(f"Home Assistant {VERSION} can't be installed here: {done.stderr.strip()[-300:]}")
    (folder / "made").touch()


def _python_3_12() -> Path | None:
    found = [Path(sys.executable)] if sys.version_info[:2] == (3, 12) else []
    found += [Path(path) for path in [shutil.which("python3.12")] if path]
    found += sorted((Path.home() / ".pyenv/versions").glob("3.12*/bin/python"), reverse=True)
    return next((path for path in found if path.exists()), None)
