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
_SIZE_BYTES = 4_000_000


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two boards whose agents run."""
    with fleets.crew(tmp_path_factory.mktemp("crew"), count=2) as made:
        yield made


def test_a_link_that_breaks_at_every_tenth_of_a_transfer_carries_it_all_the_same(crew: Crew) -> None:
    """No connection may carry more than a tenth; each goes on where the one before it ended."""
    bundle = crew.bundle(1, padding=_SIZE_BYTES)
    link = crew.net.boards[0].link
    attempts = 0
    crew.net.shape(0, reset_after_bytes=_SIZE_BYTES // 10)
    before = link.carried_bytes
    while True:
        attempts += 1
        try:
            outcome = push.deploy("pi-0", crew.fleet, bundle, pause=lambda _wait_s: None)
        except UnreachableError:
            assert attempts < 5
        else:
            break
    carried = link.carried_bytes - before
    crew.net.shape(0)

    assert (bundle.digest, True) == (outcome.bundle, outcome.changed)
    assert bundle.digest == crew.serving("pi-0")
    # Headers and handshakes included; what was under way when a line broke went twice.
    assert _SIZE_BYTES < carried < 1.6 * _SIZE_BYTES


def test_a_link_that_is_gone_for_a_moment_at_every_tenth_breaks_nothing(crew: Crew) -> None:
    """The cable is pulled and put in again: TCP waits, and so do we."""
    bundle = crew.bundle(2, padding=_SIZE_BYTES)
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
