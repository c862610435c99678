"""What a rollout asks of the installer: a shadow before the switch, and an undo that is safe to repeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.device.bundles_made import MadeBundle, Signer, install, make_bundle, receive
from tests.device.fake_serving import SHADOWED, FakeServing, probe_report
from tflotilla.device.installer import Installer
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.errors import BusyError, ConflictError, ContractError, ProbeError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.deployment import DeploymentStatus


class Board:
    """One agent's life: its installer, with a fake supervisor, and what it told."""

    def __init__(self, home: Home) -> None:
        self.store = Store(home)
        self.serving = FakeServing()
        self.told: list[DeploymentStatus] = []
        self.installer = Installer(self.store, self.serving, InferenceConfig(), on_status=self.told.append)

    def deploy(self, made: MadeBundle, *, shadow: int = 0) -> DeploymentStatus:
        return asyncio.run(self.installer.deploy("d1", made.digest, lambda _status: None, shadow=shadow))

    def undo(self, made: MadeBundle, *, deployment: str = "u1") -> DeploymentStatus:
        return asyncio.run(self.installer.rollback(deployment, lambda _status: None, bundle=made.digest))

    @property
    def shadows(self) -> list[tuple[object, ...]]:
        return [call for call in self.serving.calls if call[0] == "shadow"]


@pytest.fixture
def board(home: Home, one: MadeBundle, two: MadeBundle) -> Board:
    """It serves one, and two lies ready."""
    install(home, one)
    receive(home, two)
    return Board(home)


class TestShadows:
    def test_it_is_told_when_probing_ends_and_ever_after(self, board: Board, one: MadeBundle, two: MadeBundle) -> None:
        last = board.deploy(two, shadow=20)

        assert [status.state.value for status in board.told] == [
            "verifying",
            "probing",
            "probing",
            "switching",
            "confirming",
            "succeeded",
        ]
        assert [status.shadow for status in board.told] == [None, None, SHADOWED, SHADOWED, SHADOWED, SHADOWED]
        assert board.told[2].detail == "9 of 10 inputs are answered as by what serves"
        assert last.shadow == SHADOWED
        ((_, champion, challenger, _chosen, inputs),) = board.shadows
        assert (champion, challenger, inputs) == (one.digest, two.digest, 20)

    def test_without_being_asked_for_there_is_none(self, board: Board, two: MadeBundle) -> None:
        assert board.deploy(two).shadow is None
        assert board.shadows == []

    @pytest.mark.parametrize(
        ("failure", "words"),
        [
            (ProbeError("the shadow process crashed (SIGSEGV)"), "the shadow process crashed (SIGSEGV)"),
            (ZeroDivisionError("oops"), "a bug of the agent"),
        ],
    )
    def test_one_that_fails_stops_nothing(self, board: Board, two: MadeBundle, failure: Exception, words: str) -> None:
        board.serving.shadowed = failure

        last = board.deploy(two, shadow=20)

        assert last.state.value == "succeeded"
        assert last.shadow is not None
        assert (last.shadow.inputs, last.shadow.agreed) == (0, 0)
        assert words in (last.shadow.reason or "")

    def test_one_that_never_agrees_stops_nothing_either(self, board: Board, two: MadeBundle) -> None:
        """Whether it is meant to answer otherwise, only who asked for it can say."""
        board.serving.shadowed = ShadowReport(inputs=20, agreed=0)

        assert board.deploy(two, shadow=20).state.value == "succeeded"

    def test_a_first_bundle_has_nothing_to_be_compared_with(self, home: Home, one: MadeBundle) -> None:
        receive(home, one)
        board = Board(home)

        last = board.deploy(one, shadow=20)

        assert last.state.value == "succeeded"
        assert last.shadow == ShadowReport(inputs=0, agreed=0, reason="nothing served before")
        assert board.shadows == []

    def test_another_model_is_not_compared(self, home: Home, one: MadeBundle, signer: Signer, tmp_path: Path) -> None:
        install(home, one)
        detector = make_bundle(tmp_path / "detector", signer, name="detector")
        receive(home, detector)
        board = Board(home)

        last = board.deploy(detector, shadow=20)

        assert last.shadow == ShadowReport(inputs=0, agreed=0, reason="what serves is another model, digits")
        assert board.shadows == []

    def test_what_serves_already_says_so(self, board: Board, one: MadeBundle) -> None:
        last = board.deploy(one, shadow=20)

        assert last.shadow is not None
        assert last.shadow.reason == "it serves already"

    def test_a_candidate_that_fails_its_probe_is_not_shadowed(self, board: Board, two: MadeBundle) -> None:
        board.serving.reports = (probe_report(reason="7 LSB off"),)

        assert board.deploy(two, shadow=20).state.value == "rejected"
        assert board.shadows == []

    @pytest.mark.parametrize("inputs", [-1, 10_001])
    def test_a_number_that_makes_no_sense_is_refused(self, board: Board, two: MadeBundle, inputs: int) -> None:
        with pytest.raises(ContractError, match=r"expected 0\.\.10000"):
            board.deploy(two, shadow=inputs)


class TestUndoing:
    def test_it_brings_back_what_served_before(self, board: Board, one: MadeBundle, two: MadeBundle) -> None:
        board.deploy(two)

        last = board.undo(two)

        assert (last.state.value, last.candidate, last.detail) == ("succeeded", one.digest, "")
        assert board.store.current() == one.digest

    @pytest.mark.parametrize("deployment", ["u1", "u2"])
    def test_asked_for_again_by_whatever_id_after_a_restart_it_does_nothing(
        self, home: Home, board: Board, one: MadeBundle, two: MadeBundle, deployment: str
    ) -> None:
        board.deploy(two)
        board.undo(two)
        restarted = Board(home)
        before = {path: path.lstat().st_mtime_ns for path in home.path.rglob("*")}

        last = restarted.undo(two, deployment=deployment)

        assert (last.state.value, last.candidate, last.title) == ("succeeded", one.digest, "digits-1.0.0")
        assert last.detail.startswith("digits-1.0.0 serves, not ")
        assert restarted.store.current() == one.digest
        assert restarted.serving.calls == []
        assert {path: path.lstat().st_mtime_ns for path in home.path.rglob("*")} == before

    def test_a_board_that_never_had_it_is_left_alone(self, board: Board, one: MadeBundle, two: MadeBundle) -> None:
        assert board.undo(two).state.value == "succeeded"
        assert board.store.current() == one.digest

    def test_a_board_that_serves_nothing_is_left_alone(self, home: Home, two: MadeBundle) -> None:
        last = Board(home).undo(two)

        assert (last.state.value, last.candidate) == ("succeeded", two.digest)
        assert last.detail.startswith("nothing serves, not ")

    def test_one_with_nothing_before_it_can_not_be_undone(self, board: Board, one: MadeBundle) -> None:
        with pytest.raises(ConflictError, match="nothing to roll back to"):
            board.undo(one)

    def test_while_it_is_being_confirmed_the_board_is_busy(self, board: Board, two: MadeBundle) -> None:
        async def story() -> None:
            board.serving.gate = asyncio.Event()
            deploying = asyncio.ensure_future(board.installer.deploy("d1", two.digest, lambda _status: None))
            await board.serving.probing.wait()
            with pytest.raises(BusyError, match=r"digits-2\.0\.0 is being deployed"):
                await board.installer.rollback("u1", lambda _status: None, bundle=two.digest)
            board.serving.gate.set()
            await deploying

        asyncio.run(story())
