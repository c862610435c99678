"""What lies in a virtual board's folder, and the environment that its programs see.

    home/  tmp/            the user's
    bin/                   stand-ins: `python3` is this machine's own interpreter, never a virtual environment's
    bin-old/  bin-bare/    the same for the faults of `faults.Faults.python`
    host_key               the SSH server's identity
    board.log  port        written by the board

Rules it keeps: nothing of the host's environment reaches a board; `sudo` and `systemctl` refuse, because a virtual
board must never change the machine it lives on.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.lab import keys
from tflotilla.host.lab.processes import MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.host.lab.faults import Faults

_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_REFUSALS = {
    "sudo": "sudo: a password is required",
    "systemctl": "System has not been booted with systemd as init system (PID 1). Can't operate.",
    "loginctl": "System has not been booted with systemd as init system (PID 1). Can't operate.",
}
_OLD = """\
import sys
sys.version_info = type("version_info", (tuple,), {n: property(lambda s, i=i: s[i]) for i, n in enumerate(
    ("major", "minor", "micro", "releaselevel", "serial"))})((3, 7, 3, "final", 0))
sys.version = "3.7.3 (default, a virtual board with an old Python)"
sys.hexversion = 0x030703F0
import platform
platform.python_version = lambda: "3.7.3"
platform.python_version_tuple = lambda: ("3", "7", "3")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """One board's folder."""

    folder: Path
    lab_id: str
    name: str

    @property
    def home(self) -> Path:
        """The user's home."""
        return self.folder / "home"

    @property
    def host_key(self) -> Path:
        """The SSH server's private key; `.pub` beside it."""
        return self.folder / "host_key"

    @property
    def authorized_keys(self) -> Path:
        """Whom the board lets in."""
        return self.home / ".ssh" / "authorized_keys"

    def lay_out(self, *, client_public: str, python: Path | None = None, has_ssh_keygen: bool | None = None) -> None:
        """Make the folder of a new board.

        Args:
            client_public: the key it lets in.
            python: its interpreter, by default this one's base.
            has_ssh_keygen: False gives it a stand-in that can verify; by default where this machine has none.

        """
        interpreter = python or Path(base_interpreter())
        for part in (self.authorized_keys.parent, self.folder / "tmp", self.folder / "bin"):
            part.mkdir(parents=True)
        keys.generate(self.host_key, comment=self.name)
        self.authorized_keys.write_text(client_public + "\n")
        self.authorized_keys.chmod(0o600)
        (self.folder / "bin" / "python3").symlink_to(interpreter)
        for name, words in _REFUSALS.items():
            _script(self.folder / "bin" / name, f"echo {shlex.quote(words)} >&2\nexit 1\n")
        if has_ssh_keygen is None:
            has_ssh_keygen = shutil.which("ssh-keygen", path=os.pathsep.join(_SYSTEM_PATH)) is not None
        if not has_ssh_keygen:
            _script(
                self.folder / "bin" / "ssh-keygen",
                f'exec {shlex.quote(sys.executable)} -m tflotilla.host.bundles.sshsig "$@"\n',
            )

    def path(self, faults: Faults) -> str:
        """Return the PATH of a board with these faults, making what it names."""
        own = self.folder / "bin"
        if faults.python == "present":
            return os.pathsep.join((str(own), *_SYSTEM_PATH))
        if faults.python == "old":
            return os.pathsep.join((str(self._old_python(own)), str(own), *_SYSTEM_PATH))
        return str(self._without_python(own))

    def _old_python(self, own: Path) -> Path:
        folder = self.folder / "bin-old"
        if not folder.exists():
            (folder / "lib").mkdir(parents=True)
            (folder / "lib" / "sitecustomize.py").write_text(_OLD)
            real = (own / "python3").readlink()
            _script(
                folder / "python3",
                'case "$1" in -V|--version) echo Python 3.7.3; exit 0;; esac\n'
                f'PYTHONPATH={shlex.quote(str(folder / "lib"))} exec {shlex.quote(str(real))} "$@"\n',
            )
        return folder

    def _without_python(self, own: Path) -> Path:
        folder = self.folder / "bin-bare"
        if not folder.exists():
            folder.mkdir()
            for source in (own, *map(Path, _SYSTEM_PATH)):
                if not source.is_dir():
                    continue
                for program in source.iterdir():
                    link = folder / program.name
                    if not program.name.startswith(("python", "pypy")) and not link.is_symlink():
                        link.symlink_to(program)
        return folder

    def environment(self, faults: Faults, extra: Mapping[str, str]) -> dict[str, str]:
        """Return what a program on the board sees, and nothing of what this process sees."""
        return {
            **extra,
            "PATH": self.path(faults),
            "HOME": str(self.home),
            "USER": user(),
            "LOGNAME": user(),
            "SHELL": "/bin/sh",
            "TMPDIR": str(self.folder / "tmp"),
            MARK: f"{self.lab_id}/{self.name}",
        }


def user() -> str:
    """Return the name one logs in with: a virtual board runs as whoever started the lab."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "pi"


def base_interpreter() -> str:
    """Return the interpreter outside of the virtual environment: a board has no TensorFlow to lean on."""
    return str(getattr(sys, "_base_executable", sys.executable))


def _script(path: Path, body: str) -> None:
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
