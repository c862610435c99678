"""The installer when a deployment brings how the bundle is to run: probed so, served so, and what becomes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from tests.device.bundles_made import MadeBundle, install, receive
from tests.device.fake_serving import CRASHING, NEW_RUNTIME, OLD_RUNTIME, SLOWER, probe_report
from tests.device.test_installer import Board
from tflotilla.device import facts
from tflotilla.device.choice import Choice
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.messages import DelegateReport

if TYPE_CHECKING:
    from tflotilla.device.home import Home
    from tflotilla.device.reports import ProbeReport
    from tflotilla.shared.contract.board import RuntimeOffer
    from tflotilla.shared.contract.deployment import DeploymentStatus


HERE = facts.processors()
TUNED = InferenceConfig(runtime="ai-edge-litert", num_threads=1, xnnpack=False, affinity=HERE[:1])


class TestTuned:
    """A deployment that brings how the bundle is to run."""

    def deploy(self, board: Board, made: MadeBundle, inference: InferenceConfig | None = TUNED) -> DeploymentStatus:
        return asyncio.run(board.installer.deploy("t1", made.digest, lambda _status: None, inference=inference))

    def test_it_is_probed_and_served_so(self, home: Home, one: MadeBundle) -> None:
        receive(home, one)
        board = Board(home)
        board.serving.tuned = ((TUNED, probe_report(NEW_RUNTIME)),)

        last = self.deploy(board, one)

        tuned = Choice(runtime=NEW_RUNTIME, inference=TUNED, kernel=facts.kernel())
        assert last.state.value == "succeeded"
        assert board.serving.probed == [TUNED]
        assert board.serving.chosen == tuned
        assert Store(home).choice(one.digest) == tuned

    @pytest.mark.parametrize(
        ("report", "reason"),
        [
            (probe_report(NEW_RUNTIME, reason="output 0 is 7 LSB off"), "output 0 is 7 LSB off"),
            (
                replace(
                    probe_report(NEW_RUNTIME),
                    delegate=DelegateReport(requested="libx.so", active=None, reason="it hangs"),
                ),
                "its delegate is not active: it hangs",
            ),
        ],
    )
    def test_what_fails_its_probe_is_served_as_agent_toml_says(
        self, home: Home, one: MadeBundle, report: ProbeReport, reason: str
    ) -> None:
        receive(home, one)
        board = Board(home)
        board.serving.tuned = ((TUNED, report),)

        last = self.deploy(board, one)

        assert last.state.value == "succeeded"
        assert f"not as tuned (1 thread, without XNNPACK, on processor {HERE[0]}): {reason}" in last.detail
        assert board.serving.chosen == Choice(runtime=OLD_RUNTIME)

    @pytest.mark.parametrize(
        ("wanted", "reason"),
        [
            (replace(TUNED, num_threads=64), "64 threads are more than this board has processors"),
            (replace(TUNED, affinity=(1023,)), "processor 1023 is not there"),
            (replace(TUNED, runtime="auto"), "it names no runtime"),
        ],
    )
    def test_what_this_board_can_not_do_is_not_even_probed(
        self, home: Home, one: MadeBundle, wanted: InferenceConfig, reason: str
    ) -> None:
        receive(home, one)
        board = Board(home)

        last = self.deploy(board, one, wanted)

        assert reason in last.detail
        assert wanted not in board.serving.probed
        assert board.store.current() == one.digest

    def test_a_runtime_that_agent_toml_fixes_is_not_overruled(self, home: Home, one: MadeBundle) -> None:
        receive(home, one)
        board = Board(home, inference=InferenceConfig(runtime="tflite-runtime"))
        board.serving.tuned = ((TUNED, probe_report(NEW_RUNTIME)),)

        last = self.deploy(board, one)

        assert last.detail.endswith("agent.toml wants tflite-runtime")
        assert TUNED not in board.serving.probed

    def test_whoever_goes_back_to_agent_toml_is_not_held_to_the_pace_before(self, home: Home, one: MadeBundle) -> None:
        receive(home, one)
        board = Board(home)
        board.serving.tuned = ((TUNED, probe_report(NEW_RUNTIME)),)
        self.deploy(board, one)
        board.serving.observation = SLOWER

        last = asyncio.run(board.installer.deploy("t2", one.digest, lambda _status: None))

        assert last.state.value == "succeeded"
        assert board.serving.chosen == Choice(runtime=OLD_RUNTIME)

    def test_what_serves_so_already_is_left_alone(self, home: Home, one: MadeBundle) -> None:
        receive(home, one)
        board = Board(home)
        board.serving.tuned = ((TUNED, probe_report(NEW_RUNTIME)),)
        board.store.home.make()
        install(home, one)
        installed = next(offer for offer in facts.runtimes())
        wanted = replace(TUNED, runtime=runtime_name(installed))
        board.store.choose(one.digest, Choice(runtime=installed, inference=wanted, kernel=facts.kernel()))

        last = self.deploy(board, one, wanted)

        assert (last.state.value, last.detail) == ("succeeded", "serves already")
        assert board.serving.calls == []

    def test_what_serves_otherwise_is_served_so_and_back_again(
        self, home: Home, one: MadeBundle, two: MadeBundle
    ) -> None:
        install(home, one)
        receive(home, two)
        board = Board(home)
        board.deploy(two)
        board.serving.tuned = ((TUNED, probe_report(NEW_RUNTIME)),)

        self.deploy(board, two)
        assert board.serving.chosen == Choice(runtime=NEW_RUNTIME, inference=TUNED, kernel=facts.kernel())
        assert (board.store.current(), board.store.previous()) == (two.digest, one.digest)

        asyncio.run(board.installer.deploy("t2", two.digest, lambda _status: None))
        assert board.serving.chosen == Choice(runtime=OLD_RUNTIME)
        assert (board.store.current(), board.store.previous()) == (two.digest, one.digest)

    def test_what_behaves_badly_so_gets_its_old_way_back(self, home: Home, one: MadeBundle) -> None:
        receive(home, one)
        board = Board(home)
        board.deploy(one)
        board.serving.tuned = ((TUNED, probe_report(NEW_RUNTIME)),)
        board.serving.observation = CRASHING

        last = self.deploy(board, one)

        assert last.state.value == "rolled_back"
        assert board.serving.chosen == Choice(runtime=OLD_RUNTIME)
        assert Store(home).choice(one.digest) == Choice(runtime=OLD_RUNTIME)
        assert board.store.current() == one.digest


def runtime_name(offer: RuntimeOffer) -> Literal["tflite-runtime", "ai-edge-litert"]:
    return "tflite-runtime" if offer.name == "tflite-runtime" else "ai-edge-litert"
