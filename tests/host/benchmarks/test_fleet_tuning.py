"""One board of each kind is searched, the next when it can't be reached; what was found is kept by runtime."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests import facts_made
from tests.host.benchmarks import measured
from tests.host.benchmarks.tuned_boards import TFLITE, FakeBoard, pi
from tflotilla.host.benchmarks import fleet_tuning
from tflotilla.host.benchmarks.fleet_tuning import Job, KindTuned
from tflotilla.host.benchmarks.matrix import Axes
from tflotilla.host.benchmarks.tuning import Wish
from tflotilla.shared.contract.benchmark import CellError, Configuration, Method
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import BoardRun

JOB = Job(
    axes=Axes(threads=(), xnnpack=(True, False)),
    wish=Wish(seed=3),
    method=Method(min_runs=64, min_seconds=10.0, max_seconds=60.0),
    bind=True,
)


class FakeFleet:
    """Answers for each board as a `Measurer` does."""

    def __init__(self, board: FakeBoard | None = None) -> None:
        self.board = board or FakeBoard()
        self.unreachable: frozenset[str] = frozenset()
        self.asked: list[str] = []
        self.restarts = 0
        self.kernels = ["6.1.0-rpi7-rpi-v8"]

    def __call__(self, board: str, configurations: tuple[Configuration, ...], method: Method) -> BoardRun:
        self.asked.append(board)
        if board in self.unreachable:
            lost = measured.board_run((), board=board)
            return replace(lost, identity=None, error=f"{board} is off", error_kind="UnreachableError")
        cells = self.board(configurations, method)
        if self.restarts:
            self.restarts -= 1
            restarted = CellError(kind="interrupted", message="the board was restarted while this was measured")
            cells = (replace(cells[0], measurement=None, error=restarted), *cells[1:])
        run = measured.board_run(cells, board=board, method=method)
        assert run.identity is not None
        kernel = self.kernels.pop(0) if len(self.kernels) > 1 else self.kernels[0]
        facts = replace(pi(), hostname=board, kernel=kernel)
        return replace(run, identity=replace(run.identity, facts=facts))


def _tune(fleet: FakeFleet, *, boards: tuple[str, ...] = ("pi-1", "pi-2"), job: Job = JOB) -> KindTuned:
    (kind,) = fleet_tuning.kinds(dict.fromkeys(boards, pi()))
    return fleet_tuning.tune(kind, job, fleet, now=lambda: 1.8e9)


def test_boards_are_of_one_kind_when_nothing_that_counts_differs() -> None:
    facts = {
        "a": pi(),
        "b": replace(pi(), hostname="b", model="Raspberry Pi 4 Model B Rev 1.1", ram_bytes=1),
        "c": replace(pi(), kernel="6.12"),
        "d": pi(2),
        "e": replace(pi(), runtimes=(facts_made.LITERT, TFLITE)),
        "f": replace(pi(), runtimes=(TFLITE,)),
    }

    assert [kind.boards for kind in fleet_tuning.kinds(facts)] == [("a", "b", "e"), ("c",), ("d",), ("f",)]


def test_one_board_is_searched_for_all_of_its_kind() -> None:
    fleet = FakeFleet()

    result = _tune(fleet)

    assert result.error is None
    assert result.board == "pi-1"
    assert set(fleet.asked) == {"pi-1"}
    assert result.found is not None
    assert result.found.best is not None
    pick, other = result.records
    assert sorted((pick.runtime.name, other.runtime.name)) == ["ai-edge-litert", "tflite-runtime"]
    (picked,) = [record for record in result.records if record.pick]
    assert picked.configuration == result.found.best.configuration
    assert picked.value_ns == min(record.value_ns for record in result.records)
    assert (picked.kernel, picked.seed, picked.tried) == ("6.1.0-rpi7-rpi-v8", 3, 28)
    assert (picked.model_sha256, picked.title) == ("ab" * 32, "birds-1.0.0")


def test_the_next_of_its_kind_stands_in_for_one_that_is_off() -> None:
    fleet = FakeFleet()
    fleet.unreachable = frozenset({"pi-1"})

    result = _tune(fleet)

    assert (result.board, result.error) == ("pi-2", None)


def test_all_of_them_off_is_the_first_ones_error() -> None:
    fleet = FakeFleet()
    fleet.unreachable = frozenset({"pi-1", "pi-2"})

    result = _tune(fleet)

    assert str(result.error) == "pi-1 is off"
    assert result.records == ()


def test_a_board_that_became_another_one_is_not_believed() -> None:
    fleet = FakeFleet()
    fleet.kernels = ["6.1.0", "6.12.0"]

    result = _tune(fleet)

    assert isinstance(result.error, BoardError)
    assert str(result.error) == "pi-1: model, runtime or kernel changed while it was tuned; tune again"
    assert result.records == ()


def test_where_nothing_can_be_served_the_commonest_reason_is_told() -> None:
    error = CellError(kind="hung", message="no answer within 20 s")
    fleet = FakeFleet(FakeBoard(failing=dict.fromkeys((1, 2, 3, 4), error)))

    result = _tune(fleet)

    assert str(result.error) == (
        "pi-1: none of 28 configurations can be served so; most often, like the best: hung: no answer within 20 s"
    )
    assert result.records == ()


def test_constraints_that_nothing_keeps_leave_no_record() -> None:
    result = _tune(FakeFleet(), job=replace(JOB, wish=Wish(max_rss_mib=10)))

    assert "memory: 60.0 MiB, at most 10 MiB may be" in str(result.error)
    assert result.records == ()


def test_what_no_board_can_run_is_said_by_the_name_it_has_in_the_fleet() -> None:
    result = _tune(FakeFleet(), boards=("attic",), job=replace(JOB, wish=Wish(leave_cores=4)))

    assert str(result.error) == "--leave-cores 4 leaves nothing of the 4 cores of attic"


def test_a_configuration_that_a_restart_interrupted_is_measured_once_more() -> None:
    fleet, steady = FakeFleet(), FakeFleet()
    fleet.restarts = 1

    result, undisturbed = _tune(fleet), _tune(steady)

    assert len(fleet.asked) == len(steady.asked) + 1
    assert result.found is not None
    assert undisturbed.found is not None
    assert result.found.ranking == undisturbed.found.ranking


def test_one_that_is_interrupted_again_and_again_is_out() -> None:
    fleet = FakeFleet()
    fleet.restarts = 2

    result = _tune(fleet)

    assert result.found is not None
    assert [entry.out for entry in result.found.ranking if entry.disqualified] == [
        "interrupted: the board was restarted while this was measured"
    ]
