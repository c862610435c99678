"""Boards without a battery: in 1970, ten years ahead, and set right in the middle of it all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.network import clocks, fleets
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.fleet.lines import ssh
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.clocks import Clock
    from tests.network.fleets import Crew

pytestmark = pytest.mark.sshd
_TEN_YEARS_S = 10 * 365 * 86_400
_S = DeploymentState


@pytest.fixture(scope="module", params=["1970", "ten years ahead"])
def wrong_s(request: pytest.FixtureRequest) -> int:
    """Return by how much the board's clock is wrong."""
    return 60 - int(time.time()) if request.param == "1970" else _TEN_YEARS_S


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, wrong_s: int) -> Iterator[Crew]:
    """One board, bootstrapped while its clock was wrong."""
    with fleets.enrolled(tmp_path_factory.mktemp("crew"), count=1) as made:
        clocks.give(made.net.boards[0], wrong_s)
        fleets.give_packages(made.fleet, "pi-0", made.net.boards[0])
        bootstrap.bootstrap("pi-0", made.fleet)
        yield made


@pytest.fixture
def clock(crew: Crew, wrong_s: int) -> Clock:
    """Return the board's clock, wrong."""
    made = clocks.of(crew.net.boards[0])
    made.shift(wrong_s)
    return made


def _date_s(crew: Crew) -> int:
    with ssh.connect("pi-0", crew.fleet.board("pi-0"), crew.fleet) as link:
        return int(link.run("date +%s", timeout_s=60).stdout)


def test_a_board_with_a_wrong_clock_gets_bundles_and_goes_back(crew: Crew, clock: Clock, wrong_s: int) -> None:
    """Signatures, releases and deadlines don't depend on what day a board takes it for."""
    del clock
    assert abs(_date_s(crew) - time.time() - wrong_s) < 60
    first, second = crew.bundle(1, padding=100_000), crew.bundle(2)
    push.deploy("pi-0", crew.fleet, first)
    push.deploy("pi-0", crew.fleet, second)
    back = push.rollback("pi-0", crew.fleet)

    assert (first.digest, first.digest) == (back.bundle, crew.serving("pi-0"))


@pytest.mark.parametrize("state", [_S.TRANSFERRING, _S.PROBING, _S.CONFIRMING], ids=lambda state: str(state.value))
def test_a_clock_that_is_set_right_in_the_middle_of_a_deployment_changes_nothing(
    crew: Crew, clock: Clock, state: DeploymentState
) -> None:
    """NTP comes some seconds after the board did."""
    bundle = crew.bundle(10 + list(_S).index(state), padding=100_000)
    heard: list[DeploymentState] = []

    def set_right(status: DeploymentStatus) -> None:
        if status.state is state:
            clock.shift(0)
        heard.append(status.state)

    outcome = push.deploy("pi-0", crew.fleet, bundle, on_status=set_right)

    assert (0, _S.SUCCEEDED, bundle.digest) == (outcome.cuts, heard[-1], crew.serving("pi-0"))
