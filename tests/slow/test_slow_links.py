"""Links so slow or so lossy that people would give up: a deployment takes its time, and arrives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.network import fleets
from tflotilla.host.fleet import push
from tflotilla.shared.contract.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.fleets import Crew
    from tflotilla.host.bundles.archive import Bundle

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(900)]
_PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Boards whose agents run."""
    base = tmp_path_factory.mktemp("slow-links")
    with fleets.quiet_host(base / "home", base / "cache"), fleets.crew(base / "crew", count=3) as made:
        yield made


def _insist(crew: Crew, name: str, bundle: Bundle) -> push.Outcome:
    """Deploy, and again after every failure of the line, as a rollout does."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return push.deploy(name, crew.fleet, bundle)
        except UnreachableError:
            if time.monotonic() > give_up:
                raise


def test_64_kbit_per_second_carry_a_bundle_without_a_cut(crew: Crew) -> None:
    """What is sent is what the bundle needs: 200 kB take 25 s, and nobody loses patience."""
    bundle = crew.bundle(1, padding=200_000)
    crew.net.shape(0, rate_bit=64_000)

    outcome = push.deploy("pi-0", crew.fleet, bundle)

    assert (0, bundle.digest, True) == (outcome.cuts, outcome.bundle, outcome.bytes_sent < 215_000)


def test_a_bundle_arrives_where_30_of_100_packets_are_lost_each_way(crew: Crew) -> None:
    """However many lines break meanwhile, what has arrived is not sent again."""
    bundle = crew.bundle(2, padding=40_000)
    crew.net.shape(1, loss=0.3)

    outcome = _insist(crew, "pi-1", bundle)

    assert bundle.digest == outcome.bundle


def test_a_cable_that_is_pulled_for_long_cuts_the_line_and_the_transfer_goes_on(crew: Crew) -> None:
    """Half a minute without a word from the board is the end of a line, not of a deployment."""
    bundle = crew.bundle(3, padding=2_000_000)
    link = crew.net.boards[2].link
    pulled = False

    def pull_once(sent: int, total: int) -> None:
        nonlocal pulled
        if not pulled and sent > total / 2:
            pulled = True
            link.set_up(up=False)

    before = link.carried_bytes
    outcome = push.deploy("pi-2", crew.fleet, bundle, on_bytes=pull_once, pause=lambda _wait_s: link.set_up(up=True))
    carried = link.carried_bytes - before

    assert (True, 1, bundle.digest) == (pulled, outcome.cuts, crew.serving("pi-2"))
    assert carried < 3_000_000
