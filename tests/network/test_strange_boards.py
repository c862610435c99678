"""Boards that answer what no agent would: garbage, a gigabyte, terminal codes; and one that became another machine.

Each costs its host a bounded time and memory, and says one clean line; the boards beside it are served.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.commands import Person, Ran
from tests.end_to_end.mistakes import complaint
from tests.network import fleets
from tests.network.boards import Board
from tflotilla.host.fleet import pool, push, sessions
from tflotilla.host.fleet.lines import ssh
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import IdentityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.network.fleets import Crew

pytestmark = pytest.mark.sshd
_GIGABYTE = 1 << 30
#: In which a command must have ended.
_PATIENCE_S = 60
#: What the command line takes by itself is about half of it.
_MEMORY_KIB = 250_000
#: Runs the command line, and writes the most memory it ever had, in KiB, into the file that is its first argument.
_MEASURED = """
import atexit, sys
from pathlib import Path
place = Path(sys.argv.pop(1))
# Not ru_maxrss: it begins with what the process that started this one had.
most = lambda: next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
atexit.register(lambda: place.write_text(most()))
from tflotilla.host.cli import main
main()
"""
_TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\nsecond line\r\x9b0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a command did, and the most memory it had."""

    ran: Ran
    memory_kib: int


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Three boards whose agents serve the first release."""
    with fleets.crew(tmp_path_factory.mktemp("crew"), count=3) as made:
        for result in push.deploy_many(made.names, made.fleet, made.bundle(1)):
            assert result.error is None
        yield made


@pytest.fixture
def person(crew: Crew, quiet: Path) -> Person:
    """Give somebody in the fleet's folder."""
    return Person(folder=crew.fleet.folder, home=quiet)


@pytest.fixture
def answering(crew: Crew) -> Iterator[Answering]:
    """Return what makes the first board answer every command with a script's words, until the test is over."""
    board = crew.net.boards[0]
    yield Answering(board=board)
    board.options.clear()
    board.stop()
    board.start()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """Makes a board run a script whatever it is asked to run."""

    board: Board

    def __call__(self, script: str) -> None:
        """Take this as every command's, from the next connection on."""
        file = self.board.folder / "answer"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        self.board.options[:] = [f"ForceCommand {file}"]
        self.board.stop()
        self.board.start()


def _measured(person: Person, *arguments: str) -> Cost:
    place = person.folder / "memory"
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(place), *arguments],
        cwd=person.folder,
        env=person.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    ran = Ran(code=done.returncode, out=done.stdout, err=done.stderr)
    return Cost(ran=ran, memory_kib=int(place.read_text()))


_FLOODS = {
    "garbage": "head -c 3000000 /dev/urandom",
    "a gigabyte without a line": f"head -c {_GIGABYTE} /dev/zero",
    "a gigabyte of lines": f"yes hello | head -c {_GIGABYTE}",
    "a gigabyte that could be frames": f"yes '{{\"a\": 1}}' | head -c {_GIGABYTE}",
    "a gigabyte of errors": f"yes | head -c {_GIGABYTE} >&2",
    "a gigabyte and a good exit": f"head -c {_GIGABYTE} /dev/zero | tr '\\0' '\\n'; exit 0",
}


@pytest.mark.parametrize("command", ["status", "deploy", "probe", "bootstrap"])
@pytest.mark.parametrize("flood", _FLOODS)
def test_a_flood_costs_little_and_ends_in_one_line(
    crew: Crew, person: Person, answering: Answering, command: str, flood: str
) -> None:
    """However much a board says, no more of it is kept than a frame or the end of what it complained."""
    bundle = crew.bundle(2)
    answering(_FLOODS[flood])
    words = {
        "status": ("status", "pi-0"),
        "deploy": ("deploy", str(bundle.path), "pi-0"),
        "probe": ("board", "probe", "pi-0"),
        "bootstrap": ("board", "bootstrap", "pi-0"),
    }[command]

    cost = _measured(person, *words)

    assert cost.memory_kib < _MEMORY_KIB
    assert "pi-0" in complaint(cost.ran, cost.ran.code)
    assert cost.ran.code in {3, 5, 7}


@pytest.mark.parametrize("command", ["status", "deploy", "rollback", "probe"])
def test_terminal_codes_of_a_board_are_shown_and_not_obeyed(
    crew: Crew, person: Person, answering: Answering, command: str
) -> None:
    """As the refusal of a session, and as the last words of a program."""
    bundle = crew.bundle(2)
    refusal = json.dumps({"done": True, "error": "BoardError", "message": _TERMINAL})
    (answering.board.folder / "refusal").write_text(f"{refusal}\n")
    (answering.board.folder / "words").write_text(_TERMINAL)
    answering(f"cat {answering.board.folder}/refusal; cat {answering.board.folder}/words >&2; exit 1")
    words = {
        "status": ("status", "pi-0"),
        "deploy": ("deploy", str(bundle.path), "pi-0"),
        "rollback": ("rollback", "pi-0"),
        "probe": ("board", "probe", "pi-0"),
    }[command]

    ran = person.types(*words, code=7)

    assert "\\x1b" in complaint(ran, 7)
    assert (False, False) == ("\x1b" in ran.out + ran.err, "\x9b" in ran.out + ran.err)


def test_terminal_codes_in_what_a_board_says_of_itself_and_its_deployments_are_not_obeyed(
    crew: Crew, person: Person, answering: Answering
) -> None:
    """An agent that was taken over answers as the contract says, with words that are none."""
    with (
        ssh.connect("pi-0", crew.fleet.board("pi-0"), crew.fleet) as link,
        sessions.open_session(link, "user") as session,
    ):
        hello = codec.encode(session.hello)
        state = codec.encode(session.state())
        session.bye()
    (answering.board.folder / "frames.json").write_text(json.dumps({"hello": hello, "state": state}))
    (answering.board.folder / "impostor.py").write_text(_IMPOSTOR)
    answering(f"exec python3 {answering.board.folder}/impostor.py {answering.board.folder}/frames.json")
    bundle = crew.bundle(2)
    said = ""
    for words in (("status", "pi-0"), ("status", "pi-0", "--json"), ("deploy", str(bundle.path), "pi-0")):
        ran = person.types(*words, code=None)
        said += ran.out + ran.err

    assert "rejected" in said
    assert (False, False, False) == ("\x1b" in said, "\x9b" in said, "\x07" in said)


#: Says hello, and to everything what an agent would, with terminal codes wherever a text may stand.
_IMPOSTOR = f"""
import json, sys
words = {_TERMINAL!r}
frames = json.load(open(sys.argv[1]))
def say(frame):
    print(json.dumps(frame), flush=True)
hello = frames["hello"]
hello["agent_version"] = words
for name in ("model", "kernel", "hostname", "distribution"):
    hello["facts"][name] = words
hello["serving"] = None
say(hello)
for line in sys.stdin.buffer:
    request = json.loads(line)
    status = {{"deployment": request.get("deployment"), "candidate": request.get("bundle"), "title": words}}
    if request["verb"] == "state":
        frames["state"]["problem"] = words
        say({{"done": True, "state": frames["state"]}})
    elif request["verb"] == "offer":
        say({{"done": True, "present": True, "current": False}})
    elif request["verb"] == "manifest":
        say({{"done": True, "missing": []}})
    elif request["verb"] == "deploy":
        say({{"done": False, "status": {{**status, "state": "probing", "detail": words}}}})
        say({{"done": True, "status": {{**status, "state": "rejected", "detail": words}}}})
    else:
        say({{"done": True}})
"""


def test_a_host_key_that_changes_in_the_middle_of_many_boards_stops_that_one_alone(crew: Crew, person: Person) -> None:
    """It became another machine while the first one was served: nothing is sent to it, the others get theirs."""
    bundle = crew.bundle(3)
    stranger = crew.net.boards[1]
    carried = 0

    def become_another(name: str, status: DeploymentStatus) -> None:
        nonlocal carried
        if (name, status.state) == ("pi-0", DeploymentState.CONFIRMING):
            stranger.change_host_key()
            carried = stranger.link.carried_bytes

    results = push.deploy_many(("pi-0", "pi-1", "pi-2"), crew.fleet, bundle, forks=1, on_status=become_another)
    sent = stranger.link.carried_bytes - carried
    ran = person.types("deploy", str(bundle.path), "all", code=6)

    assert [True, False, True] == [result.ok for result in results]
    assert isinstance(results[1].error, IdentityError)
    assert IdentityError.exit_code == pool.exit_code(results)
    assert sent < 5000
    assert "another host key" in ran.out
    assert "1 of 3 boards failed" == complaint(ran, 6)
    assert [bundle.digest, bundle.digest] == [crew.serving(name) for name in ("pi-0", "pi-2")]
