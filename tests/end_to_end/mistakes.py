"""Make mistakes as a person does, and hold the answer to what it owes: one line, the right class, no traceback.

`Clumsy` types commands in this process, where the same code path is taken as in one of its own, in a fraction of the
time; every family of mistakes has at least one test by `Person`, in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.commands import Ran
from tflotilla.host import cli
from tflotilla.host.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS = "tflotilla: "
#: Begin of what libraries and Python itself say, and people never should hear.
_FOREIGN = ("Traceback", "a bug of tflotilla", "Error: ", "<class", "object at 0x", "[Errno")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clumsy:
    """Somebody in a folder who types commands and gets them wrong."""

    folder: Path

    def types(self, *arguments: str | Path) -> Ran:
        """Run `tflotilla arguments…` in this process, as `python -m tflotilla.host` would."""
        out, err = io.StringIO(), io.StringIO()
        # They are made for the streams that stood there first.
        output.console.cache_clear()
        output.notes.cache_clear()
        before = Path.cwd(), sys.argv
        os.chdir(self.folder)
        sys.argv = ["tflotilla", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli._run()
        finally:
            os.chdir(before[0])
            sys.argv = before[1]
            output.console.cache_clear()
            output.notes.cache_clear()
        return Ran(code=code, out=out.getvalue(), err=err.getvalue())

    def errs(self, *arguments: str | Path, code: int) -> str:
        """Run a command that must fail with `code` and leave the folder as it was; return its complaint."""
        before = listing(self.folder)
        said = complaint(self.types(*arguments), code)
        assert before == listing(self.folder), "something half-done lies about"
        return said


@pytest.fixture
def clumsy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clumsy]:
    """Give somebody in a folder of their own, with a home without keys, and no fleet."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("TFLOTILLA_FLEET", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    work = tmp_path / "it's $(touch pwned) here"
    work.mkdir()
    yield Clumsy(folder=work)
    assert not list(tmp_path.rglob("pwned")), "a name was executed"


def complaint(ran: Ran, code: int) -> str:
    """Return the one line of complaint on stderr; progress may stand before it, nothing of a library's anywhere."""
    assert code == ran.code, f"exit {ran.code}, not {code}\n{ran.out}\n{ran.err}"
    ours = [line for line in ran.err.splitlines() if line.startswith(_OURS)]
    assert len(ours) == 1, ran.err
    assert ran.err.endswith(f"{ours[0]}\n"), f"the complaint is not the last word\n{ran.err}"
    for words in _FOREIGN:
        assert words not in ran.err, ran.err
    said = ours[0].removeprefix(_OURS)
    assert said.isprintable(), repr(said)
    return said


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return everything below a folder with size and time of change, but for what tflotilla remembers of a fleet."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns if path.is_file() else 0)
        for path in folder.rglob("*")
        if ".tflotilla" not in path.relative_to(folder).parts
    }
