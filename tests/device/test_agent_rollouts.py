"""The whole agent as a rollout meets it: a real session, a real shadow, an undo, and what it tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import brokers, models_made
from tests.device import homes_made, running_bundles
from tests.device.agents import Session
from tests.device.bundles_made import MadeBundle, Signer, make_bundle, trust
from tflotilla.shared.contract.manifest import GoldenPolicy, HealthPolicy
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.contract.session import Request

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.deployment import DeploymentStatus


@pytest.fixture
def home(tmp_path: Path, signer: Signer) -> Home:
    found = homes_made.make(tmp_path / "home", homes_made.config(1))
    trust(found, signer)
    return found


def _release(folder: Path, signer: Signer, release: int, model: str, *, shift: int = 0) -> MadeBundle:
    return make_bundle(
        folder / f"release{release}",
        signer,
        version=f"{release}.0.0",
        release=release,
        model=models_made.read(model),
        labels=models_made.LABELS,
        goldens=running_bundles.golden_bytes(4, shift=shift),
        goldens_policy=GoldenPolicy(count=4, runtime="by construction", tolerance_lsb=2),
        inputs=(running_bundles.IMAGE,),
        outputs=(running_bundles.SCORES,),
        preprocessing=Preprocessing(colour="gray", std=(255.0,)),
        postprocessing=Postprocessing(top_k=3),
        health=HealthPolicy(confirm_window_s=0.5),
    )


def _deploy(home: Home, made: MadeBundle, deployment: str, *, shadow: int | None = None) -> list[DeploymentStatus]:
    with Session(home) as board:
        board.hello()
        board.send_bundle(made)
        replies = board.ask_all(Request(verb="deploy", bundle=made.digest, deployment=deployment, shadow=shadow))
    assert replies[-1].error is None, replies[-1].message
    return [reply.status for reply in replies if reply.status is not None]


def test_a_release_that_answers_otherwise_is_told_by_its_shadow_and_undone_once(
    home: Home, signer: Signer, tmp_path: Path
) -> None:
    first = _release(tmp_path, signer, 1, "tiny_classifier")
    second = _release(tmp_path, signer, 2, "tiny_classifier_shifted", shift=1)
    with homes_made.running(home) as agent:
        brokers.until(lambda: agent.process.poll() is not None or home.socket.exists(), "the agent listens")
        told = _deploy(home, first, "d1", shadow=12)
        assert told[-1].state.value == "succeeded", told[-1].detail
        assert told[-1].shadow is not None
        assert told[-1].shadow.reason == "nothing served before"

        told = _deploy(home, second, "d2", shadow=12)
        assert told[-1].state.value == "succeeded", told[-1].detail
        shadow = told[-1].shadow
        assert shadow is not None, told
        assert (shadow.inputs, shadow.agreed, shadow.reason) == (12, 0, None)
        assert [status.shadow for status in told if status.state.value in ("switching", "confirming")] == [shadow] * 2

        for attempt in range(3):
            with Session(home) as board:
                board.hello()
                undo = Request(verb="rollback", bundle=second.digest, deployment=f"u{attempt // 2}")
                last = board.ask_all(undo)[-1].status
                state = board.ask(Request(verb="state")).state
            assert last is not None
            assert (last.state.value, last.candidate) == ("succeeded", first.digest)
            assert state is not None
            assert state.serving is not None
            assert state.serving.digest == first.digest
