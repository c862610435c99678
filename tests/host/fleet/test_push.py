"""Bundles go to a real agent behind a real sshd: deployed, refused, cut off, brought back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import models_made
from tests import sshd as real_sshd
from tests.device import running_bundles
from tflotilla.host.bundles import signing
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet import pool, push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.fleet.lines import ssh
from tflotilla.host.fleet.tuned import Advice
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import (
    BoardError,
    ConflictError,
    IdentityError,
    IncompatibleError,
    ProbeError,
    UnreachableError,
    VerificationError,
)
from tflotilla.shared.contract.manifest import (
    LABELS,
    MANIFEST,
    SIGNATURE,
    HealthPolicy,
    ModelRequirements,
    OpRequirement,
)

if TYPE_CHECKING:
    from tests.sshd import Sshd
    from tflotilla.host.fleet.inventory.fleet import Fleet

pytestmark = pytest.mark.sshd

_S = DeploymentState
_WHOLE_WAY = [_S.TRANSFERRING, _S.VERIFYING, _S.PROBING, _S.SWITCHING, _S.CONFIRMING, _S.SUCCEEDED]
_HEALTH = HealthPolicy(confirm_window_s=0.5, max_p99_ratio=None)


@pytest.fixture
def agent(warm: Sshd, fleet: Fleet) -> Sshd:
    """Return a board whose agent runs and serves nothing yet."""
    bootstrap.bootstrap("pi-1", fleet)
    return warm


def make_bundle(
    fleet: Fleet,
    release: int = 1,
    *,
    key: Path | None = None,
    padding: int = 0,
    **changes: Any,  # noqa: ANN401 - fields of the manifest
) -> Bundle:
    """Make a signed bundle `tiny-1.0.<release>`; `padding` bytes that don't compress are appended to its model."""
    model = models_made.read("tiny_classifier")
    if padding:
        model += _noise(padding)
    vectors = changes.pop("vectors", None)
    given = {"version": f"1.0.{release}", "release": release, **changes}
    folder = fleet.folder / f"tiny-{release}-{len(list(fleet.folder.iterdir()))}"
    running_bundles.write(folder, model=model, vectors=vectors, changes=given, health=_HEALTH)
    manifest = (folder / MANIFEST).read_bytes()
    (folder / SIGNATURE).write_bytes(signing.sign(manifest, key or fleet.resolve(fleet.signing.key or "")))
    return Bundle.open(folder)


def _noise(size: int) -> bytes:
    import random

    return random.Random(size).randbytes(size)  # noqa: S311 - bytes that don't compress


def _disk(board: Sshd) -> dict[str, tuple[int, int]]:
    """Return inode and change time of what a deployment could touch, and of nothing that the agent keeps for itself."""
    home = board.home / layout.USER_HOME
    kept = [layout.BUNDLES, "store", layout.INCOMING, layout.CURRENT, layout.PREVIOUS, layout.JOURNAL]
    paths = [path for name in kept for path in (home / name, *(home / name).rglob("*"))]
    found = [path for path in paths if path.exists() or path.is_symlink()]
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in found}


def test_a_bundle_goes_the_whole_way_and_is_not_sent_twice(agent: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    heard: list[DeploymentStatus] = []

    outcome = push.deploy("pi-1", fleet, bundle, on_status=heard.append)

    assert [status.state for status in heard] == _WHOLE_WAY
    assert outcome.statuses == tuple(heard)
    assert outcome.changed
    assert outcome.bytes_missing == bundle.size_bytes
    status = push.status("pi-1", fleet)
    assert status.serving is not None
    assert status.serving.digest == bundle.digest
    assert status.state is not None
    assert status.state.worker == "running"

    before, carried = _disk(agent), agent.relay.forwarded_bytes
    again = push.deploy("pi-1", fleet, bundle)

    assert not again.changed
    assert again.statuses == ()
    assert _disk(agent) == before
    # The whole connection, key exchange and login included, measured here and by the relay.
    assert again.bytes_sent < 4096
    assert agent.relay.forwarded_bytes - carried < 4096


def test_what_tuning_found_is_applied_kept_and_given_up_again(agent: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    tuned = InferenceConfig(runtime="ai-edge-litert", xnnpack=False, affinity=(min(os.sched_getaffinity(0)),))
    wrong = dataclasses.replace(tuned, delegate=DelegateConfig(library="/nowhere/libdelegate.so"))

    def deploy(inference: InferenceConfig | None) -> push.Outcome:
        advice = Advice(inference=inference, said="as tuned on pi-9", insist=True)
        return push.deploy("pi-1", fleet, bundle, advise=lambda _facts: advice)

    def served() -> InferenceConfig | None:
        state = push.status("pi-1", fleet).state
        return state.inference if state else None

    outcome = deploy(tuned)
    assert (outcome.changed, outcome.tuning) == (True, "as tuned on pi-9")
    assert any("as tuned" in status.detail for status in outcome.statuses if status.state is _S.SWITCHING)
    assert served() == tuned
    before = _disk(agent)
    assert not deploy(tuned).changed
    assert _disk(agent) == before
    # Nobody advises: what serves stays as it is.
    assert not push.deploy("pi-1", fleet, bundle).changed
    assert served() == tuned

    refused = deploy(wrong)
    assert refused.changed
    assert refused.tuning.startswith("not as tuned (1 thread, without XNNPACK, delegate /nowhere/libdelegate.so")
    assert served() != tuned
    assert _serving(fleet) == bundle.digest

    deploy(tuned)
    deploy(None)
    plain = served()
    assert plain is not None
    # Which runtime is the faster one for so small a model is anybody's guess.
    assert dataclasses.replace(plain, runtime="auto") == InferenceConfig()


def test_a_second_release_shares_what_the_first_brought_and_rollback_brings_that_one_back(
    agent: Sshd, fleet: Fleet
) -> None:
    first, second = make_bundle(fleet, 1, padding=100_000), make_bundle(fleet, 2, padding=100_000)
    push.deploy("pi-1", fleet, first)

    outcome = push.deploy("pi-1", fleet, second)

    assert outcome.changed
    assert outcome.bytes_missing == 0
    assert outcome.bytes_sent < 12_000
    assert _serving(fleet) == second.digest

    back = push.rollback("pi-1", fleet)

    assert back.bundle == first.digest
    assert back.title == "tiny-1.0.1"
    assert back.statuses[-1].state is _S.SUCCEEDED
    assert _serving(fleet) == first.digest
    assert agent.relay.connections > 0


def _serving(fleet: Fleet) -> str | None:
    serving = push.status("pi-1", fleet).serving
    return serving.digest if serving else None


def test_a_cut_transfer_goes_on_where_it_broke(agent: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet, padding=12_000_000)
    progress: list[int] = []
    at_the_cut: list[int] = []
    agent.relay.cut_after_bytes = 8_000_000

    outcome = push.deploy(
        "pi-1",
        fleet,
        bundle,
        on_bytes=lambda sent, _total: progress.append(sent),
        pause=lambda _wait_s: at_the_cut.append(len(progress)),
    )

    assert outcome.cuts == 1
    assert [status.state for status in outcome.statuses] == _WHOLE_WAY
    assert _serving(fleet) == bundle.digest
    # Sent again is what was under way, in our buffers and the line's: not the whole.
    assert outcome.bytes_sent < 12_000_000 + 7_000_000
    assert progress[at_the_cut[0]] > 1_000_000


def test_a_cut_while_the_board_works_is_followed_to_the_same_end(agent: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    heard: list[DeploymentState] = []

    def cut_in_the_probe(status: DeploymentStatus) -> None:
        heard.append(status.state)
        if status.state is _S.PROBING:
            agent.relay.cut()

    outcome = push.deploy("pi-1", fleet, bundle, on_status=cut_in_the_probe, pause=lambda _wait_s: None)

    assert outcome.cuts == 1
    assert heard[:3] == _WHOLE_WAY[:3]
    assert heard[-1] is _S.SUCCEEDED
    assert len(heard) == len(set(heard))
    assert _serving(fleet) == bundle.digest


@pytest.mark.parametrize("victim", ["the session", "the agent"])
def test_a_kill_while_the_board_works_is_followed_to_the_same_end(agent: Sshd, fleet: Fleet, victim: str) -> None:
    bundle = make_bundle(fleet)
    heard: list[DeploymentState] = []

    def kill_in_the_probe(status: DeploymentStatus) -> None:
        if status.state is _S.PROBING and _S.PROBING not in heard:
            home = agent.home / layout.USER_HOME
            pids = [int((home / layout.PID).read_text())] if victim == "the agent" else _sessions(agent.home)
            assert pids
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        heard.append(status.state)

    outcome = push.deploy("pi-1", fleet, bundle, on_status=kill_in_the_probe)

    assert outcome.cuts >= 1
    assert heard[-1] is _S.SUCCEEDED
    assert _serving(fleet) == bundle.digest


def _sessions(home: Path) -> list[int]:
    """The processes that are a session of the agent on the board with that home, told by what it was started with."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit():
                begun = b"session_start" in (process / "cmdline").read_bytes()
                if begun and os.fsencode(home) in (process / "environ").read_bytes():
                    found.append(int(process.name))
    return found


def test_a_bundle_whose_ops_the_board_cannot_run_is_refused_before_a_byte_is_sent(agent: Sshd, fleet: Fleet) -> None:
    needs = ModelRequirements(ops=(OpRequirement(name="FULLY_CONNECTED", version=99),))
    bundle = make_bundle(fleet, requirements=needs, padding=50_000)
    before, carried = _disk(agent), agent.relay.forwarded_bytes

    with pytest.raises(IncompatibleError, match=r"pi-1 can't run tiny-1.0.1: .*FULLY_CONNECTED version 99"):
        push.deploy("pi-1", fleet, bundle)

    assert agent.relay.forwarded_bytes - carried < 4096
    assert _disk(agent) == before


@pytest.mark.parametrize("locally", [True, False], ids=["by the host", "by the board"])
def test_a_bundle_edited_after_signing_is_refused(agent: Sshd, fleet: Fleet, locally: bool) -> None:  # noqa: FBT001
    bundle = make_bundle(fleet)
    (bundle.path / MANIFEST).write_bytes(bundle.manifest_bytes.replace(b'"release":1', b'"release":7'))
    edited = Bundle.open(bundle.path)
    before = _disk(agent)

    with pytest.raises(VerificationError):
        push.deploy("pi-1", fleet, edited, verify_locally=locally)

    assert _disk(agent) == before


def test_a_file_edited_after_signing_is_refused_by_the_host_and_by_the_board(agent: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    labels = bundle.path / LABELS
    labels.write_bytes(labels.read_bytes()[::-1])
    edited = Bundle.open(bundle.path)

    with pytest.raises(VerificationError, match=LABELS):
        push.deploy("pi-1", fleet, edited)
    with pytest.raises(VerificationError, match="pi-1"):
        push.deploy("pi-1", fleet, edited, verify_locally=False)

    assert _serving(fleet) is None
    assert push.deploy("pi-1", fleet, make_bundle(fleet)).changed
    assert agent.relay.connections > 0


@pytest.mark.parametrize("locally", [True, False], ids=["by the host", "by the board"])
def test_a_strangers_bundle_is_refused(agent: Sshd, fleet: Fleet, tmp_path: Path, locally: bool) -> None:  # noqa: FBT001
    bundle = make_bundle(fleet, key=real_sshd.generate_key(tmp_path / "stranger"))
    before = _disk(agent)

    with pytest.raises(VerificationError):
        push.deploy("pi-1", fleet, bundle, verify_locally=locally)

    assert _disk(agent) == before


def test_an_unsigned_bundle_is_refused_with_what_to_do(fleet: Fleet) -> None:
    bundle = dataclasses.replace(make_bundle(fleet), signature=None)

    with pytest.raises(VerificationError, match=r"not signed; .*--key"):
        push.deploy("pi-1", fleet, bundle)


def test_outputs_that_differ_from_the_goldens_are_refused_in_the_probe_while_the_old_model_serves(
    agent: Sshd, fleet: Fleet
) -> None:
    good = make_bundle(fleet, 1)
    push.deploy("pi-1", fleet, good)
    bad = make_bundle(fleet, 2, vectors=running_bundles.golden_bytes(shift=1))
    heard: list[DeploymentState] = []

    with pytest.raises(ProbeError, match=r"pi-1: tiny-1\.0\.2 rejected: "):
        push.deploy("pi-1", fleet, bad, on_status=lambda status: heard.append(status.state))

    assert heard[-2:] == [_S.PROBING, _S.REJECTED]
    status = push.status("pi-1", fleet)
    assert status.serving is not None
    assert status.serving.digest == good.digest
    assert status.state is not None
    assert status.state.worker == "running"
    assert agent.relay.connections > 0


def test_an_older_release_is_a_conflict(agent: Sshd, fleet: Fleet) -> None:
    push.deploy("pi-1", fleet, make_bundle(fleet, 5))

    with pytest.raises(ConflictError, match="pi-1"):
        push.deploy("pi-1", fleet, make_bundle(fleet, 4))
    assert agent.relay.connections > 0


def test_a_rollback_with_nothing_to_go_back_to_is_a_conflict(agent: Sshd, fleet: Fleet) -> None:
    with pytest.raises(ConflictError, match="pi-1: nothing to roll back to"):
        push.rollback("pi-1", fleet)
    assert agent.relay.connections > 0


def test_a_disk_that_fills_up_refuses_the_bundle_and_keeps_the_agent(agent: Sshd, fleet: Fleet) -> None:
    agent.limit_file_size(1 << 20)

    with pytest.raises(BoardError, match="pi-1"):
        push.deploy("pi-1", fleet, make_bundle(fleet, padding=3_000_000))

    assert _serving(fleet) is None


def test_an_agent_that_does_not_run_says_how_to_start_it(agent: Sshd, fleet: Fleet) -> None:
    launcher = agent.home / layout.USER_HOME / layout.LAUNCHER
    with ssh.connect("pi-1", fleet.board("pi-1"), fleet) as link:
        assert link.run(f"{launcher} stop", timeout_s=60).exit_status == 0

    with pytest.raises(BoardError, match="its agent doesn't run"):
        push.deploy("pi-1", fleet, make_bundle(fleet))
    assert not push.status("pi-1", fleet).running


def test_a_changed_host_key_gets_nothing(agent: Sshd, fleet: Fleet) -> None:
    agent.change_host_key()
    carried = agent.relay.forwarded_bytes

    with pytest.raises(IdentityError):
        push.deploy("pi-1", fleet, make_bundle(fleet))

    assert agent.relay.forwarded_bytes - carried < 3000


def test_many_boards_get_a_bundle_and_one_that_is_off_stops_no_one(agent: Sshd, fleet: Fleet, tmp_path: Path) -> None:
    lost = dataclasses.replace(fleet.board("pi-1"), port=_closed_port())
    both = fleet.add("pi-2", lost, f"[127.0.0.1]:{lost.port} {' '.join(fleet.pinned('pi-1') or ())}")
    bundle = make_bundle(fleet)

    on, off = push.deploy_many(both.select("all"), both, bundle)

    assert on.value is not None
    assert on.value.changed
    assert isinstance(off.error, UnreachableError)
    assert pool.exit_code([on, off]) == UnreachableError.exit_code
    assert agent.relay.connections > 0
    assert tmp_path.exists()


def _closed_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
