"""Run tflotilla as a person or a script does: by its command line, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATIENCE_S = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """The JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in a folder, with an environment of their own."""

    folder: Path
    home: Path
    #: More variables of their environment.
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What their commands find in the environment."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TFLOTILLA_CACHE": os.environ.get("TFLOTILLA_CACHE", str(Path.home() / ".cache/tflotilla")),
        }
        # How this machine reaches its package index is its own business, and uv's.
        environment |= {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
        return environment | dict(self.variables)

    def types(self, *arguments: str | Path, code: int | None = 0) -> Ran:
        """Run `tflotilla arguments…`; its exit code must be `code`, unless that is None."""
        done = subprocess.run(
            [sys.executable, "-m", "tflotilla.host", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert code == done.returncode, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)
