"""Links that break off: a deployment goes on where it was, and little is sent twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.network import fleets
from tflotilla.host.fleet import push
from tflotilla.shared.contract.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.fleets import Crew

pytestmark = pytest.mark.sshd
#: A board reads as fast as this link brings, on a busy machine too: what it never read is lost with the line.
_RATE_BIT = 2_000_000
_SIZE_BYTES = 800_000


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two boards whose agents run."""
    with fleets.crew(tmp_path_factory.mktemp("crew"), count=2) as made:
        yield made


def test_a_link_that_breaks_at_every_tenth_of_a_transfer_carries_it_all_the_same(crew: Crew) -> None:
    """No connection may carry more than a tenth, login included; each goes on where the one before it ended."""
    bundle = crew.bundle(1, padding=_SIZE_BYTES)
    crew.net.shape(0, rate_bit=_RATE_BIT, reset_after_bytes=_SIZE_BYTES // 10)
    connections = 1

    def count(_wait_s: float) -> None:
        nonlocal connections
        connections += 1

    outcome = None
    while outcome is None:
        try:
            outcome = push.deploy("pi-0", crew.fleet, bundle, pause=count)
        except UnreachableError:
            # A rollout asks again, however often.
            connections += 1
            assert connections < 40
    crew.net.shape(0)

    assert (bundle.digest, True) == (outcome.bundle, outcome.changed)
    assert bundle.digest == crew.serving("pi-0")
    # Ten, were there no handshakes, and did nothing go twice; so at most twice the bytes went over the link.
    assert 10 < connections <= 20


def test_a_link_that_is_gone_for_a_moment_at_every_tenth_breaks_nothing(crew: Crew) -> None:
    """The cable is pulled and put in again: TCP waits, and so do we."""
    bundle = crew.bundle(2, padding=5 * _SIZE_BYTES)
    link = crew.net.boards[1].link
    pulled = 0

    def pull_at_every_tenth(sent: int, total: int) -> None:
        nonlocal pulled
        if sent >= pulled * total / 10:
            pulled += 1
            link.set_up(up=False)
            link.set_up(up=True)

    outcome = push.deploy("pi-1", crew.fleet, bundle, on_bytes=pull_at_every_tenth)

    assert (True, 0, bundle.digest) == (pulled >= 10, outcome.cuts, crew.serving("pi-1"))
