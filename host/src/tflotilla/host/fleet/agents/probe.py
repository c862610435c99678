"""What a board is, asked over SSH before anything of ours is there.

What it does NOT do: measure, install, or judge whether a bundle fits (`models.compatibility`).
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.fleet import sessions
from tflotilla.host.fleet.agents import environments, onboard
from tflotilla.host.fleet.agents.environments import Installed
from tflotilla.host.fleet.lines import ssh
from tflotilla.shared.contract import codec, layout
from tflotilla.shared.contract.board import BoardFacts
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet, Install
    from tflotilla.host.fleet.lines.ssh import Link

_MARK = b"TFLOTILLA-FACTS "
_NO_PYTHON = 95
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the script found: `facts`, and what only a bootstrap needs to know."""

    facts: BoardFacts
    home: str
    root: bool
    #: The interpreter's own path: what the launcher will run.
    executable: str
    ssh_keygen: bool
    #: Other interpreters on its PATH that are new enough.
    newer: tuple[str, ...]
    system_disk_free_bytes: int
    #: Asked on 32-bit boards only.
    numpy: Installed | None = None
    pillow: Installed | None = None
    #: Whether a 32-bit ARM system passes floats in registers, as Raspberry Pi OS and Debian's armhf do.
    hard_float: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probed board: its facts, and whether an agent is installed."""

    board: str
    facts: BoardFacts
    agent_version: str | None = None


def survey(link: Link, python: str) -> Ground:
    """Run the facts script with the board's interpreter.

    Raises:
        BoardError: there is no such interpreter, or it is too old; both versions are named.
        UnreachableError: the line broke.

    """
    interpreter = shlex.quote(python)
    script = f"command -v {interpreter} >/dev/null 2>&1 || exit {_NO_PYTHON}; exec {interpreter} -"
    done = link.run(f"exec sh -c {shlex.quote(script)}", stdin=onboard.script("facts"), timeout_s=_TIMEOUT_S)
    if done.exit_status == _NO_PYTHON:
        message = (
            f"{link.board} has no {python} on its PATH; install Python 3.10 or newer (Debian: apt install python3)"
        )
        raise BoardError(message)
    line = next((each for each in done.stdout.splitlines() if each.startswith(_MARK)), None)
    if line is None:
        said = " ".join(done.stderr.decode(errors="replace").split())[-200:] or f"exit status {done.exit_status}"
        message = f"{link.board}: {python} couldn't say what the board is: {said}"
        raise BoardError(message)
    where = f"{link.board}: facts"
    ground = codec.decode(Ground, codec.parse_json(line.removeprefix(_MARK), where), where)
    version = tuple(int(part) for part in ground.facts.python.split(".")[:2])
    if version < environments.OLDEST_PYTHON:
        said = environments.too_old(ground.facts.python, f"its {python}", ground.newer)
        message = f"{link.board}: {said}"
        raise BoardError(message)
    return ground


def place(ground: Ground, install: Install, board: str) -> str:
    """Decide where the agent's home is.

    Raises:
        BoardError: a system installation was asked for, and we are not root there.

    """
    if install == "system" and not ground.root:
        message = f'{board}: install = "system" needs root, we are {ground.facts.user}; log in as root or use "user"'
        raise BoardError(message)
    if install == "system" or (install == "auto" and ground.root and ground.facts.systemd):
        return layout.SYSTEM_HOME
    return f"{ground.home.rstrip('/')}/{layout.USER_HOME}"


def probe(name: str, fleet: Fleet) -> Probe:
    """Ask a board what it is, and remember it: from its agent when it has one, else by the script.

    Raises:
        UnreachableError, IdentityError, BoardError: see `ssh.connect` and `survey`.

    """
    entry: BoardEntry = fleet.board(name)
    with ssh.connect(name, entry, fleet) as link:
        ground = survey(link, entry.python)
        result = Probe(board=name, facts=_with_room(ground, place(ground, entry.install, name)))
        try:
            with sessions.open_session(link, entry.install) as session:
                hello = session.hello
                result = Probe(board=name, facts=hello.facts, agent_version=hello.agent_version)
                session.bye()
            fleet.save_hello(name, hello)
        except BoardError:
            # Not bootstrapped yet, or its agent is broken: the script's facts are what there is.
            fleet.save_facts(name, result.facts)
    return result


def _with_room(ground: Ground, home: str) -> BoardFacts:
    if home == layout.SYSTEM_HOME:
        return dataclasses.replace(ground.facts, disk_free_bytes=ground.system_disk_free_bytes)
    return ground.facts
