"""A board that loses its power in any state of a deployment: old or new serves, and the deployment comes to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.network import fleets
from tflotilla.host.fleet import push
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.boards import Board
    from tests.network.fleets import Crew

pytestmark = pytest.mark.sshd
_S = DeploymentState
_STATES = (_S.TRANSFERRING, _S.VERIFYING, _S.PROBING, _S.SWITCHING, _S.CONFIRMING, _S.SUCCEEDED)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One board whose agent serves the first release."""
    with fleets.crew(tmp_path_factory.mktemp("crew"), count=1) as made:
        push.deploy("pi-0", made.fleet, made.bundle(1))
        yield made


def reboot(board: Board) -> str:
    """Take the power away and give it back; return the digest of what the board's disk says serves, in between.

    The agent is started as cron's @reboot line or systemd would, by nobody's request.
    """
    board.power_off()
    home = board.home / layout.USER_HOME
    serves = (home / layout.CURRENT).readlink().name
    board.start()
    board.run(str(home / layout.LAUNCHER), "start").wait(60)
    return serves


@pytest.mark.parametrize("state", _STATES, ids=[state.value for state in _STATES])
def test_a_reboot_in_any_state_leaves_old_or_new_and_the_deployment_ends(crew: Crew, state: DeploymentState) -> None:
    """The host follows it over the reboot, and hears the end."""
    (board,) = crew.net.boards
    old = crew.serving("pi-0")
    bundle = crew.bundle(2 + _STATES.index(state), padding=300_000)
    heard: list[DeploymentState] = []
    served: list[str] = []

    def reboot_once(status: DeploymentStatus) -> None:
        if status.state is state and not served:
            served.append(reboot(board))
        heard.append(status.state)

    outcome = push.deploy("pi-0", crew.fleet, bundle, on_status=reboot_once)

    assert served[0] in {old, bundle.digest}
    assert (_S.SUCCEEDED, bundle.digest) == (heard[-1], outcome.bundle)
    assert bundle.digest == crew.serving("pi-0")


def test_a_reboot_in_the_middle_of_a_transfer_sends_little_twice(crew: Crew) -> None:
    """What had arrived lies on the board's disk."""
    (board,) = crew.net.boards
    bundle = crew.bundle(20, padding=4_000_000)
    served: list[str] = []

    def reboot_at_half(sent: int, total: int) -> None:
        if not served and sent > total / 2:
            served.append(reboot(board))

    before = crew.serving("pi-0")
    outcome = push.deploy("pi-0", crew.fleet, bundle, on_bytes=reboot_at_half)

    assert ([before], bundle.digest) == (served, crew.serving("pi-0"))
    assert outcome.bytes_sent < 1.5 * bundle.size_bytes


def test_a_reboot_in_the_middle_of_an_undo_brings_the_old_one_back(crew: Crew) -> None:
    """Asked again after the reboot, an undo doesn't undo itself."""
    (board,) = crew.net.boards
    old = crew.serving("pi-0")
    bundle = crew.bundle(30)
    push.deploy("pi-0", crew.fleet, bundle)
    served: list[str] = []

    def reboot_once(status: DeploymentStatus) -> None:
        if status.state is _S.SWITCHING and not served:
            served.append(reboot(board))

    push.undo("pi-0", crew.fleet, bundle=bundle.digest, deployment="0" * 16, on_status=reboot_once)

    assert ({served[0]} <= {old, bundle.digest}, old) == (True, crew.serving("pi-0"))
