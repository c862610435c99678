"""What goes over the line for a release that is nearly what the board has, and what undoing it means."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests import models_made
from tests.device import running_bundles
from tflotilla.host.bundles import signing
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet import push
from tflotilla.host.fleet.agents import bootstrap, layers
from tflotilla.host.fleet.lines.throttle import Throttle
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.deployment import DeploymentState
from tflotilla.shared.contract.errors import ConflictError, UnreachableError
from tflotilla.shared.contract.manifest import MANIFEST, MODEL, SIGNATURE, HealthPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sshd import Sshd
    from tflotilla.host.fleet.inventory.fleet import Fleet

pytestmark = pytest.mark.sshd

_NOISE = random.Random(0).randbytes(2_000_000)  # noqa: S311 - weights that don't compress


@pytest.fixture
def agent(warm: Sshd, fleet: Fleet) -> Sshd:
    """Return a board whose agent runs and serves nothing yet."""
    bootstrap.bootstrap("pi-1", fleet)
    return warm


def _bundle(fleet: Fleet, release: int, weights: bytes = _NOISE) -> Bundle:
    folder = fleet.folder / f"tiny-{release}"
    running_bundles.write(
        folder,
        model=models_made.read("tiny_classifier") + weights,
        changes={"version": f"1.0.{release}", "release": release},
        health=HealthPolicy(confirm_window_s=0.2, max_p99_ratio=None),
    )
    key = fleet.resolve(fleet.signing.key or "")
    (folder / SIGNATURE).write_bytes(signing.sign((folder / MANIFEST).read_bytes(), key))
    return Bundle.open(folder)


def _retrained(weights: bytes) -> bytes:
    """One weight in a hundred a step further."""
    return bytes((byte + (at % 100 == 0)) % 256 for at, byte in enumerate(weights))


def _serving(fleet: Fleet) -> str | None:
    serving = push.status("pi-1", fleet).serving
    return serving.digest if serving else None


def test_a_retrained_model_goes_as_its_difference(agent: Sshd, fleet: Fleet) -> None:
    first, second = _bundle(fleet, 1), _bundle(fleet, 2, _retrained(_NOISE))
    push.deploy("pi-1", fleet, first)
    carried = agent.relay.forwarded_bytes

    outcome = push.deploy("pi-1", fleet, second)

    assert outcome.bytes_missing == second.manifest.files[MODEL].size
    assert agent.relay.forwarded_bytes - carried < 100_000
    assert _serving(fleet) == second.digest
    assert outcome.before == first.digest


def test_a_difference_that_is_cut_goes_on_where_it_broke(agent: Sshd, fleet: Fleet) -> None:
    """Half of the weights are new noise: the difference is a megabyte, and cut in its middle."""
    other = random.Random(1).randbytes(1_000_000)  # noqa: S311 - weights
    first, second = _bundle(fleet, 1), _bundle(fleet, 2, _retrained(_NOISE[:1_000_000]) + other)
    push.deploy("pi-1", fleet, first)
    agent.relay.rate_bytes_per_s = 2e6
    agent.relay.cut_after_bytes = 700_000

    outcome = push.deploy("pi-1", fleet, second, pause=lambda _wait_s: None)

    assert outcome.cuts == 1
    assert outcome.bytes_sent < 1_900_000
    assert _serving(fleet) == second.digest


def test_a_base_that_is_damaged_on_the_board_costs_a_second_sending(agent: Sshd, fleet: Fleet) -> None:
    first, second = _bundle(fleet, 1), _bundle(fleet, 2, _retrained(_NOISE))
    push.deploy("pi-1", fleet, first)
    sha256 = first.manifest.files[MODEL].sha256
    blob = agent.home / layout.USER_HOME / layout.STORE / sha256[:2] / sha256
    blob.chmod(0o600)
    with blob.open("r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"damage")

    outcome = push.deploy("pi-1", fleet, second)

    assert outcome.statuses[-1].state is DeploymentState.SUCCEEDED
    assert outcome.bytes_sent > 2_000_000
    assert _serving(fleet) == second.digest


def test_without_the_old_file_on_this_machine_the_new_one_goes_whole(
    agent: Sshd, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _bundle(fleet, 1), _bundle(fleet, 2, _retrained(_NOISE))
    push.deploy("pi-1", fleet, first)
    monkeypatch.setenv(layers.CACHE_VARIABLE, str(tmp_path / "another"))

    outcome = push.deploy("pi-1", fleet, second)

    assert outcome.bytes_sent > 2_000_000
    assert _serving(fleet) == second.digest
    assert agent.relay.connections > 0


def test_a_limit_is_paid_for_by_waiting(agent: Sshd, fleet: Fleet) -> None:
    waits: list[float] = []
    limit = Throttle(1e6, burst_bytes=0, clock=lambda: 0.0, sleep=waits.append)

    push.deploy("pi-1", fleet, _bundle(fleet, 1), limit=limit)

    # What the last packet had to wait for is what all took together.
    assert 2.0 < waits[-1] < 2.2
    assert agent.relay.connections > 0


def test_an_undo_is_done_once_however_often_it_is_asked_for(agent: Sshd, fleet: Fleet) -> None:
    first, second = _bundle(fleet, 1), _bundle(fleet, 2, _retrained(_NOISE))
    push.deploy("pi-1", fleet, first)
    push.deploy("pi-1", fleet, second, deployment="d2")

    undone = push.undo("pi-1", fleet, bundle=second.digest, deployment="u1")
    again = push.undo("pi-1", fleet, bundle=second.digest, deployment="u2")

    assert (undone.changed, undone.bundle, undone.title) == (True, first.digest, "tiny-1.0.1")
    assert (again.changed, again.bundle) == (False, first.digest)
    assert _serving(fleet) == first.digest
    assert agent.relay.connections > 0


def test_an_undo_that_is_cut_off_is_asked_again_and_undone_once(agent: Sshd, fleet: Fleet) -> None:
    first, second = _bundle(fleet, 1), _bundle(fleet, 2, _retrained(_NOISE))
    push.deploy("pi-1", fleet, first)
    push.deploy("pi-1", fleet, second)

    undone = push.undo(
        "pi-1",
        fleet,
        bundle=second.digest,
        deployment="u1",
        on_status=lambda status: agent.relay.cut() if status.state is DeploymentState.SWITCHING else None,
        pause=lambda _wait_s: None,
    )

    assert undone.bundle == first.digest
    assert _serving(fleet) == first.digest


def test_an_undo_with_nothing_before_is_a_conflict_and_of_a_board_that_is_off_unreachable(
    agent: Sshd, fleet: Fleet
) -> None:
    first = _bundle(fleet, 1)
    push.deploy("pi-1", fleet, first)

    with pytest.raises(ConflictError, match="pi-1"):
        push.undo("pi-1", fleet, bundle=first.digest, deployment="u1")
    assert _serving(fleet) == first.digest
    agent.stop()
    with pytest.raises(UnreachableError):
        push.undo("pi-1", fleet, bundle=first.digest, deployment="u2")


def test_a_deployment_that_is_asked_for_again_tells_the_same_story(agent: Sshd, fleet: Fleet) -> None:
    """A host that died in between asks with the same name, and nothing is done twice."""
    first = _bundle(fleet, 1)

    once = push.deploy("pi-1", fleet, first, deployment="d1")
    twice = push.deploy("pi-1", fleet, first, deployment="d1")

    assert (once.deployment, once.before, once.changed) == ("d1", None, True)
    assert (twice.statuses, twice.before) == (once.statuses[1:], None)
    assert not push.deploy("pi-1", fleet, first, deployment="d2").changed
    assert agent.relay.connections > 0
