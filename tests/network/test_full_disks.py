"""A board whose disk fills up in any state of a deployment: one line says so, the old model serves, nothing is lost."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.network import fleets
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import BoardError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.network.boards import Board
    from tests.network.fleets import Crew

pytestmark = pytest.mark.sshd
_S = DeploymentState
_STATES = (_S.TRANSFERRING, _S.VERIFYING, _S.PROBING, _S.SWITCHING, _S.CONFIRMING)
_DISK_BYTES = 600_000_000
_PIECES_BYTES = (1 << 24, 1 << 20, 1 << 16, 1 << 12)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One board on a disk of its own, whose agent serves the first release."""
    with fleets.crew(tmp_path_factory.mktemp("crew"), count=1, disk_bytes=_DISK_BYTES) as made:
        push.deploy("pi-0", made.fleet, made.bundle(1))
        yield made


def _fill(board: Board) -> Path:
    """Take the last byte of the board's disk; return what holds it."""
    ballast = board.home / "ballast"
    with ballast.open("ab") as stream:
        for piece in _PIECES_BYTES:
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, piece)
    return ballast


@pytest.mark.parametrize("state", _STATES, ids=[state.value for state in _STATES])
def test_a_disk_that_fills_up_in_any_state_costs_the_deployment_at_most(crew: Crew, state: DeploymentState) -> None:
    """Old or new serves, as the last status says; with room again, the same bundle arrives."""
    (board,) = crew.net.boards
    old = crew.serving("pi-0")
    bundle = crew.bundle(2 + _STATES.index(state), padding=2_000_000)
    ballast: list[Path] = []

    def fill_once(status: DeploymentStatus) -> None:
        if status.state is state and not ballast:
            ballast.append(_fill(board))

    said = ""
    try:
        push.deploy("pi-0", crew.fleet, bundle, on_status=fill_once)
    except TflotillaError as error:
        said = str(error)
    serves = crew.serving("pi-0")
    ballast[0].unlink()

    assert not said or "not enough space on the board" in said
    assert (old if said else bundle.digest) == serves
    push.deploy("pi-0", crew.fleet, bundle)
    assert bundle.digest == crew.serving("pi-0")


def test_a_disk_that_fills_up_in_the_middle_of_a_transfer_gives_the_room_back(crew: Crew) -> None:
    """The board needs the room more than the next transfer needs a head start."""
    (board,) = crew.net.boards
    old = crew.serving("pi-0")
    bundle = crew.bundle(20, padding=4_000_000)
    ballast: list[Path] = []

    def fill_at_half(sent: int, total: int) -> None:
        if not ballast and sent > total / 2:
            ballast.append(_fill(board))

    with pytest.raises(BoardError, match="pi-0: not enough space on the board"):
        push.deploy("pi-0", crew.fleet, bundle, on_bytes=fill_at_half)
    left = [path for path in (board.home / layout.USER_HOME / layout.INCOMING).rglob("*") if path.suffix == ".part"]
    serves = crew.serving("pi-0")
    ballast[0].unlink()

    assert ([], old) == (left, serves)


def test_a_board_comes_up_and_serves_on_a_full_disk(crew: Crew) -> None:
    """After a reboot too: what serves needs no room."""
    (board,) = crew.net.boards
    old = crew.serving("pi-0")
    ballast = _fill(board)
    board.reboot()
    board.run(str(board.home / layout.USER_HOME / layout.LAUNCHER), "start").wait(60)
    serves = crew.serving("pi-0")
    ballast.unlink()

    assert old == serves


def test_a_bootstrap_on_a_full_disk_leaves_the_agent_as_it_is(crew: Crew) -> None:
    """Changed settings find no room: those in use are not touched."""
    (board,) = crew.net.boards
    before = push.status("pi-0", crew.fleet)
    ballast = _fill(board)
    crew.fleet.path.write_text(crew.fleet.path.read_text() + "\n[agent.reporting]\nwindow_s = 0.7\n")

    with pytest.raises(BoardError, match=r"pi-0: no space in "):
        bootstrap.bootstrap("pi-0", Fleet.load(crew.fleet.path))
    after = push.status("pi-0", crew.fleet)
    ballast.unlink()

    assert (before.serving, True) == (after.serving, after.running)
