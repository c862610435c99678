"""uv, which installs locked wheels: into a folder for a platform that isn't this one's, or into an environment here.

What it does NOT do: choose; the index, proxies and mirrors are those that the user has set up for uv.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import BoardError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TIMEOUT_S = 1800
_PIP = ("pip", "install", "--quiet", "--no-progress", "--color", "never", "--no-python-downloads")
_LOCKED = ("--only-binary", ":all:", "--require-hashes", "-r")
_COMPILE = ("pip", "compile", "--quiet", "--color", "never", "--no-python-downloads", "--no-header")


def install_for(folder: Path, requirements: Path, *, platform: str, python: str, name: str) -> None:
    """Install what a lock file names into an empty folder, wheels only, every hash checked.

    Args:
        folder: where to.
        requirements: the lock.
        platform: uv's name of one: aarch64-manylinux_2_36.
        python: its Python: 3.11.
        name: what the environment is called when it can't be built.

    Raises:
        BoardError: there is no wheel for the target, the packages can't be fetched, or uv isn't there.

    """
    where = ("--target", str(folder), "--python", sys.executable, "--link-mode", "copy")
    target = ("--python-platform", platform, "--python-version", python)
    _offline_first((*_PIP, *where, *target, *_LOCKED, str(requirements)), folder, name, BoardError)


def locate(folder: Path, requirements: Path, *, python: str, name: str) -> str:
    """Return, as the text of a pylock.toml, where the files of a lock's packages lie, for every platform there is.

    Args:
        folder: where to work; paths in the answer are relative to it.
        requirements: the lock, whole: nothing is resolved beyond it.
        python: packages that this Python (3.11) doesn't need are left out.
        name: what the environment is called when it can't be built.

    Raises:
        BoardError: the index can't be asked, or uv isn't there.

    """
    everywhere = ("--universal", "--no-deps", "--only-binary", ":all:", "--python-version", python)
    form = ("--format", "pylock.toml", str(requirements))
    return _offline_first((*_COMPILE, *everywhere, *form), folder, name, BoardError)


def create_environment(folder: Path, requirements: Path, *, name: str, failure: type[TflotillaError]) -> None:
    """Make a virtual environment of this Python in `folder` with what a lock file names.

    Raises:
        failure: it can't be made, for a reason in one line.

    """
    folder.mkdir(parents=True, exist_ok=True)
    _checked(("venv", "--quiet", "--python", sys.executable, "--clear", str(folder)), folder, name, failure)
    where = ("--python", str(folder / "bin" / "python"))
    # Some of these tools' parts have no wheels; the hashes say what is built.
    locked = ("--require-hashes", "-r", str(requirements))
    _offline_first((*_PIP, *where, *locked), folder, name, failure)


def _offline_first(command: Sequence[str], folder: Path, name: str, failure: type[TflotillaError]) -> str:
    """Take what uv has in its cache without a network: the hashes say that it is the same."""
    try:
        return _checked((*command, "--offline"), folder, name, failure)
    except failure:
        return _checked(command, folder, name, failure)


def _checked(command: Sequence[str], folder: Path, name: str, failure: type[TflotillaError]) -> str:
    try:
        done = subprocess.run(
            [_binary(failure), *command],
            # Away from the user's folder: a project there must not change what is installed.
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise failure(f"the environment {name} can't be built: uv: {error}") from error
    if done.returncode != 0:
        raise failure(f"the environment {name} can't be built: {_reason(done.stderr)}")
    return done.stdout


def _binary(failure: type[TflotillaError]) -> str:
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        found = shutil.which("uv")
        if found is None:
            raise failure("uv is not installed; it builds environments (`pip install uv`)") from error
        return found


def _reason(stderr: str) -> str:
    hint = stderr.find("\nhint:")
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", stderr[: hint if hint > 0 else None]).split())
    return text.removeprefix("error: ") or "uv failed and said nothing"
