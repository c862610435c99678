"""`tune` that ends before its time, by Ctrl-C or a full disk: boards are free again, and what was found is shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.host.benchmarks import answers, tuned_boards
from tests.host.fleet import test_tuned
from tests.host.telemetry import fake_board
from tflotilla.host.benchmarks import fleet_tuning
from tflotilla.host.benchmarks.fleet_tuning import KindTuned
from tflotilla.host.benchmarks.measuring import Measurer, Subject
from tflotilla.host.cli import tune
from tflotilla.host.fleet import tuned
from tflotilla.host.fleet.inventory import Fleet
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest, Configuration, Method

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.host.telemetry.fake_board import FakeBoard

PATIENCE_S = 120.0


@pytest.mark.mosquitto
def test_boards_end_what_nobody_waits_for_any_more(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    # `tune` waits for each kind of board in a thread, which Ctrl-C does not reach.
    asked = threading.Event()

    def going_on(request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        asked.set()
        return (answers.refusal("cancelled", request=request.request),) if request.cancel else ()

    with board("pi-1", script=going_on) as pi:
        pi.say("state", fake_board.state())
        measurer = Measurer(fleet=Fleet.load(fleet_file), way="mqtt")
        arguments = (("pi-1",), Subject(), Method(), lambda _facts: (Configuration(),))
        waiting = threading.Thread(target=measurer.measure, args=arguments, daemon=True)
        waiting.start()
        assert asked.wait(PATIENCE_S)
        measurer.abandon()
        waiting.join(PATIENCE_S)

    first, *_, last = pi.requests
    assert not waiting.is_alive()
    assert (last.request, last.cancel, first.cancel) == (first.request, True, False)


def test_what_can_not_be_kept_is_shown_all_the_same(tmp_path: Path) -> None:
    fleet = Fleet.create(tmp_path / "fleet.toml", name="barn")
    (kind,) = fleet_tuning.kinds({"pi-1": tuned_boards.pi()})
    fleet.state.mkdir(exist_ok=True)
    (fleet.state / tuned.FOLDER).write_text("a file")

    result = tune.kept(fleet, KindTuned(kind=kind, board="pi-1", records=(test_tuned.RECORD,)))

    assert result.records == ()
    assert str(result.error).startswith("what was found is not kept: ")
