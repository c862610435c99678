"""`tune` with Ctrl-C, a full disk, a broker that is away: boards are free again, and what was found is shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.host.benchmarks import answers, measured, tuned_boards
from tests.host.fleet import test_tuned
from tests.host.telemetry import fake_board
from tflotilla.host.benchmarks import fleet_tuning
from tflotilla.host.benchmarks.fleet_tuning import KindTuned
from tflotilla.host.benchmarks.measuring import Measurer, Subject
from tflotilla.host.cli import tune
from tflotilla.host.fleet import tuned
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.fleet.lines import cuts
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest, Configuration, Method
from tflotilla.shared.contract.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.host.telemetry.fake_board import FakeBoard
    from tflotilla.host.benchmarks.results import BoardRun

PATIENCE_S = 120.0


class _Flaky:
    """A measurer whose broker is away at some of its calls, counted from 1."""

    def __init__(self, *away: int) -> None:
        self.away, self.calls = away, 0

    def measure(self, boards: tuple[str, ...], *_given: object) -> tuple[BoardRun, ...]:
        self.calls += 1
        if self.calls in self.away:
            raise BrokerError("the broker did not answer")
        return (measured.board_run((measured.cell([1000] * 9),), board=boards[0]),)


def test_a_broker_that_is_away_between_rounds_costs_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "WAITS_S", (0.0, 0.0))
    flaky, said = _Flaky(2, 3), list[str]()
    ask = tune.asking(flaky, Subject(), said.append)  # type: ignore[arg-type]  # it measures alike

    ask("pi-1", (Configuration(),), Method())
    ask("pi-1", (Configuration(),), Method())

    assert flaky.calls == 4
    assert said == ["the broker did not answer; trying again"] * 2


def test_a_broker_that_was_never_there_is_said_at_once() -> None:
    ask = tune.asking(_Flaky(1), Subject(), lambda _text: None)  # type: ignore[arg-type]  # it measures alike

    with pytest.raises(BrokerError):
        ask("pi-1", (Configuration(),), Method())


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
