"""A lab that tests share, and OpenSSH's client to its boards."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tflotilla.host.lab import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.host.lab.lab import Lab, LabBoard

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Give a lab of two boards that the tests of a module share and leave as they found it."""
    with lab.up(home=tmp_path_factory.mktemp("labs"), boards=2, bound=True) as up:
        yield up


def ssh(here: Lab, board: LabBoard, *arguments: str) -> list[str]:
    """Return the command line of OpenSSH's client to a board, with the lab's key and the pinned host key."""
    known = here.fleet_file.parent / ".tflotilla" / "known_hosts"
    options = {
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
    }
    flags = [flag for key, value in options.items() for flag in ("-o", f"{key}={value}")]
    client = ["ssh", "-F", "none", "-i", str(here.client_key), *flags, "-p", str(board.port)]
    return [*client, f"{board.user}@{board.host}", *arguments]


def run(here: Lab, board: LabBoard, command: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command on a board with OpenSSH's client."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(here.folder)}
    return subprocess.run(
        ssh(here, board, command), input=stdin, capture_output=True, timeout=PATIENCE_S, check=False, env=environment
    )


def unique_sleep() -> int:
    """Return seconds that no other process sleeps: other runs of these tests may be on this machine."""
    return 10_000_000 + secrets.randbelow(90_000_000)


def pids_with(text: str) -> set[int]:
    """Return the running processes whose command line holds a text, zombies too."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found - {os.getpid()}
