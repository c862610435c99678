"""The commands that talk to boards, typed as a person types them, against a real sshd and a real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.host.fleet import conftest as boards
from tests.host.fleet.test_push import make_bundle
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.fleet.inventory.fleet import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sshd import Sshd

pytestmark = pytest.mark.sshd
cache, home, board, fleet, warm = boards.cache, boards.home, boards.board, boards.fleet, boards.warm


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "tflotilla.host", *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env=os.environ | {"TFLOTILLA_DEBUG": ""},
    )


def _address(sshd: Sshd) -> str:
    return f"{sshd.user}@{sshd.host}:{sshd.port}"


def test_without_a_terminal_a_board_is_added_by_its_fingerprint_only(board: Sshd, tmp_path: Path) -> None:
    work = tmp_path / "work"

    asked = _run(work, "board", "add", "pi-1", _address(board))

    assert asked.returncode == 2
    assert f"--fingerprint {board.fingerprint}" in asked.stderr
    assert asked.stderr.count("\n") == 1
    assert list(work.iterdir()) == []

    added = _run(work, "board", "add", "pi-1", _address(board), "--fingerprint", board.fingerprint, "--json")

    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["fingerprint"] == board.fingerprint
    assert Fleet.load(work / "fleet.toml").boards["pi-1"].port == board.port


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("$(reboot)", "h", "--accept-new"), "lower-case"),
        (("pi", "-oProxyCommand=x", "--accept-new"), ""),
        (("pi", "a b", "--accept-new"), "not a host name"),
        (("pi", "h;reboot", "--accept-new"), "not a host name"),
        (("pi", "h:70000", "--accept-new"), "1..65535"),
        (("pi", "u ser@h", "--accept-new"), "not a login name"),
        (("pi", "h", "--accept-new", "--fingerprint", "SHA256:x"), "contradict"),
        (("pi", "h", "--accept-new", "--label", "a b"), "key=value"),
    ],
)
def test_what_is_no_board_is_refused_and_no_file_is_made(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = _run(tmp_path / "work", "board", "add", *arguments)

    assert refused.returncode == 2, refused.stderr
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list((tmp_path / "work").iterdir()) == []


def test_a_board_lives_from_bootstrap_to_purge(warm: Sshd, fleet: Fleet) -> None:
    at = fleet.folder
    first, second = make_bundle(fleet, 1), make_bundle(fleet, 2)

    brought = _run(at, "board", "bootstrap", "all", "--json")
    deployed = _run(at, "deploy", first.path, "all")
    newer = _run(at, "deploy", second.path, "pi-1", "--json")
    back = _run(at, "rollback", "pi-*")
    shown = _run(at, "status", "--json")
    table = _run(at, "status")
    listed = _run(at, "board", "list", "--json")
    gone = _run(at, "board", "remove", "pi-1", "--purge")

    assert brought.returncode == 0, brought.stderr
    assert json.loads(brought.stdout)["boards"][0]["ok"]
    assert deployed.returncode == 0, deployed.stderr
    assert "tiny-1.0.1" in deployed.stdout
    assert "pi-1: probing" in deployed.stderr
    assert json.loads(newer.stdout)["boards"][0]["changed"]
    assert back.returncode == 0, back.stderr
    (state,) = json.loads(shown.stdout)["boards"]
    assert state["serving"]["version"] == "1.0.1"
    assert state["previous"]["version"] == "1.0.2"
    assert "tiny-1.0.1" in table.stdout
    assert json.loads(listed.stdout)["boards"][0]["facts"]["runtimes"]
    assert gone.returncode == 0, gone.stderr
    assert list(Fleet.load(fleet.path).boards) == []
    assert [path for path in warm.home.rglob("*") if path.is_file()] == []


def test_failures_that_share_a_class_give_its_code_and_mixed_ones_give_one(board: Sshd, fleet: Fleet) -> None:
    entry = boards.entry(board)
    bootstrap.enrol("pi-2", entry, fleet, fingerprint=board.fingerprint, confirm=lambda _key: False)

    both = _run(fleet.folder, "status", "--json")
    text = fleet.path.read_text()
    fleet.path.write_text(text.replace(f"port = {board.port}", "port = 1", 1))
    mixed = _run(fleet.folder, "status")
    board.stop()
    off = _run(fleet.folder, "status", "pi-2", "--json")

    assert both.returncode == 7
    assert {each["error"] for each in json.loads(both.stdout)["boards"]} == {"BoardError"}
    assert mixed.returncode == 1
    assert "2 of 2 boards failed" in mixed.stderr
    assert "Connection refused" in mixed.stdout
    assert off.returncode == 5
    assert json.loads(off.stdout)["boards"][0]["error"] == "UnreachableError"


def test_a_mistake_for_every_board_is_one_line(board: Sshd, fleet: Fleet) -> None:
    fleet.path.write_text(fleet.path.read_text().replace("[signing]", "[signing_]"))

    refused = _run(fleet.folder, "board", "bootstrap", "all")

    assert refused.returncode == 3
    assert "did you mean 'signing'" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert board.relay.connections == 1
