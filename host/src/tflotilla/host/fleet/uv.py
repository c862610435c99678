"""uv, which installs locked wheels for a platform that isn't this one's.

What it does NOT do: choose; the index, proxies and mirrors are those that the user has set up for uv.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.fleet.environments import Target

_TIMEOUT_S = 1800


def install(folder: Path, requirements: Path, target: Target) -> None:
    """Install what a lock file names into an empty folder, wheels only, every hash checked.

    What uv has in its cache is taken first and without a network: the hashes say that it is the same.

    Raises:
        BoardError: there is no wheel for the target, the packages can't be fetched, or uv isn't there.

    """
    command = [
        _binary(),
        *("pip", "install", "--quiet", "--no-progress", "--color", "never", "--no-python-downloads"),
        *("--target", str(folder), "--python", sys.executable, "--link-mode", "copy"),
        *("--python-platform", target.platform, "--python-version", target.python),
        *("--only-binary", ":all:", "--require-hashes", "-r", str(requirements)),
    ]
    try:
        done = _run([*command, "--offline"], folder)
        if done.returncode != 0:
            done = _run(command, folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"the environment {target} can't be built: uv: {error}"
        raise BoardError(message) from error
    if done.returncode != 0:
        raise BoardError(f"the environment {target} can't be built: {_reason(done.stderr)}")


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Away from the user's folder: a project there must not change what a board gets.
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _binary() -> str:
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        found = shutil.which("uv")
        if found is None:
            message = "uv is not installed; it builds the boards' environments (`pip install uv`)"
            raise BoardError(message) from error
        return found


def _reason(stderr: str) -> str:
    hint = stderr.find("\nhint:")
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", stderr[: hint if hint > 0 else None]).split())
    return text.removeprefix("error: ") or "uv failed and said nothing"
