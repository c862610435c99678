"""Names that only a shell would mind: in the board's HOME, the fleet's folder, labels, and the paths of bundles."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests import sshd
from tests.end_to_end.commands import Person
from tests.network import fleets
from tests.network.boards import boards
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract import layout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.network.boards import Board

pytestmark = pytest.mark.sshd
_ODD = "it's $(touch pwned) `touch pwned`; & | > * ? é"


def _odd_home(board: Board) -> None:
    """Give the board another HOME, whose name is a shell's nightmare."""
    board.home = board.folder / _ODD
    board.home.mkdir()
    board.stop()
    board.start()


def test_no_name_is_ever_run_by_a_shell(tmp_path: Path, quiet: Path) -> None:
    """A whole life of a board in such places: bootstrap, two bundles, back, asked, taken away."""
    with boards(tmp_path / "boards", count=1) as net:
        (board,) = net.boards
        _odd_home(board)
        folder = tmp_path / f"fleet {_ODD}"
        key = folder / "key"
        folder.mkdir()
        sshd.generate_key(key)
        person = Person(folder=folder, home=quiet)
        fleet = Fleet.create(folder / "fleet.toml", name="garden", signing_key=key)
        odd = {"room": "`touch${IFS}pwned`;", "quote": "it's"}
        fleet = fleet.add("pi-0", dataclasses.replace(fleets.entry(board), labels=odd), fleets.known_hosts_line(board))
        fleets.give_packages(fleet, "pi-0", board)
        person.types("board", "bootstrap", "all")
        crew = fleets.Crew(net=net, fleet=fleet)
        first, second = crew.bundle(1), crew.bundle(2)
        for bundle in (first, second):
            person.types("deploy", str(bundle.path), "room=`touch${IFS}pwned`;")
        assert second.digest == crew.serving("pi-0")
        person.types("rollback", "all")
        served = crew.serving("pi-0")
        person.types("board", "probe", "all")
        person.types("board", "remove", "pi-0", "--purge")
        left = (board.home / layout.USER_HOME).exists()

    assert (first.digest, False, []) == (served, left, list(tmp_path.rglob("pwned")))
