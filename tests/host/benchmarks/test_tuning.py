"""Which configuration wins, at what price, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.host.benchmarks.tuned_boards import FakeBoard, pi
from tflotilla.host.benchmarks import tuning
from tflotilla.host.benchmarks.matrix import Axes
from tflotilla.host.benchmarks.tuning import Wish
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import CellError, Configuration, Method
from tflotilla.shared.contract.errors import BoardError, UsageError

FULL = Method(min_runs=64, min_seconds=10.0, max_seconds=60.0)
ALL = Axes(threads=(), xnnpack=(True, False))


def _search(board: FakeBoard, wish: Wish | None = None, *, axes: Axes = ALL, cores: int = 4) -> tuning.Found:
    wish = wish or Wish()
    cells = tuning.cells(axes, pi(cores), wish)
    return tuning.conclude(tuning.run(tuning.begin(cells, FULL, wish), board))


def _inference(entry: tuning.Entry | None) -> InferenceConfig:
    assert entry is not None
    return entry.configuration.inference


class TestCells:
    def test_every_way_is_there_once(self) -> None:
        found = tuning.cells(ALL, pi(), Wish())

        assert len(found) == 2 * 4 * 2
        assert {each.inference.num_threads for each in found} == {1, 2, 3, 4}
        assert {each.inference.runtime for each in found} == {"tflite-runtime", "ai-edge-litert"}
        assert len({str(each) for each in found}) == len(found)

    def test_cores_are_left_to_others(self) -> None:
        found = tuning.cells(replace(ALL, affinities=((), (0, 1, 2, 3), (2, 3))), pi(), Wish(leave_cores=1))

        assert {each.inference.num_threads for each in found} == {1, 2, 3}
        # Not bound, or to two: bound to four would leave none.
        assert {each.inference.affinity for each in found} == {(), (2, 3)}

    def test_bound_it_gets_as_many_of_the_last_processors_as_it_has_threads(self) -> None:
        found = tuning.cells(Axes(threads=()), pi(), Wish(), bind=True)

        assert {(each.inference.num_threads, each.inference.affinity) for each in found} == {
            (1, ()),
            (1, (3,)),
            (2, ()),
            (2, (2, 3)),
            (3, ()),
            (3, (1, 2, 3)),
            (4, ()),
        }

    def test_no_more_threads_than_processors(self) -> None:
        found = tuning.cells(Axes(threads=(1, 2, 8), affinities=((0,),)), pi(), Wish())

        assert {(each.inference.num_threads, each.inference.affinity) for each in found} == {(1, (0,))}

    @pytest.mark.parametrize(
        ("axes", "wish", "message"),
        [
            (ALL, Wish(leave_cores=4), "--leave-cores 4 leaves nothing of the 4 cores of pi-1"),
            (
                Axes(threads=(8,)),
                Wish(),
                "pi-1 may use 4 of its 4 cores: every configuration takes more threads than that, or than "
                "processors of --affinity",
            ),
        ],
    )
    def test_what_leaves_nothing_is_refused(self, axes: Axes, wish: Wish, message: str) -> None:
        with pytest.raises(UsageError) as caught:
            tuning.cells(axes, pi(), wish)

        assert str(caught.value) == message

    def test_a_runtime_that_is_not_there_is_named(self) -> None:
        with pytest.raises(UsageError, match="pi-1 has tflite-runtime, and not ai-edge-litert"):
            tuning.cells(Axes(runtimes=("ai-edge-litert",)), replace(pi(), runtimes=pi().runtimes[:1]), Wish())

    def test_a_board_without_a_runtime_has_nothing_to_tune(self) -> None:
        with pytest.raises(BoardError, match="pi-1 has no runtime"):
            tuning.cells(ALL, replace(pi(), runtimes=()), Wish())


class TestSearch:
    def test_a_third_of_the_time_and_within_three_per_cent_of_the_best(self) -> None:
        axes = Axes(threads=(1, 2, 3, 4, 5, 6), xnnpack=(True, False))
        for seed in range(20):
            board = FakeBoard(seed=seed)
            found = _search(board, Wish(seed=seed), axes=axes, cores=6)
            cells = tuning.cells(axes, pi(6), Wish())

            truths = {str(each): board.truth_ns(each) for each in cells}
            picked = truths[str(found.best.configuration)] if found.best else float("inf")
            assert len(cells) == 24
            assert picked <= 1.03 * min(truths.values()), seed
            assert board.seconds <= 24 * (board.overhead_s + FULL.min_seconds) / 3

    def test_it_begins_with_all_briefly_and_ends_with_two_in_full(self) -> None:
        board = FakeBoard()
        _search(board, axes=Axes(threads=(1, 2, 3, 4, 5, 6), xnnpack=(True, False)), cores=6)

        assert [len(cells) for cells, _ in board.asked] == [24, 6, 2]
        assert [method.min_seconds for _, method in board.asked] == pytest.approx([10 / 40, 10 / 8, 10])
        assert board.asked[-1][1] == FULL

    @pytest.mark.parametrize("overhead_s", [0.5, 2.0, 6.0])
    def test_a_third_of_the_time_however_long_a_process_takes_to_start(self, overhead_s: float) -> None:
        axes, wish = Axes(threads=(1, 2, 3, 4, 5, 6), xnnpack=(True, False)), Wish()
        board = FakeBoard(overhead_s=overhead_s)
        search = tuning.begin(tuning.cells(axes, pi(6), wish), FULL, wish, stretch=True)

        search = tuning.run(search, board, clock=lambda: board.seconds)

        full = search.rungs[-1].method
        assert board.asked[-1][1] == full
        assert full.min_seconds == pytest.approx(max(10.0, 7 * overhead_s), rel=0.05)
        assert board.seconds <= 24 * (overhead_s + full.min_seconds) / 3

    def test_the_order_is_shuffled_by_the_seed_anew_in_each_round(self) -> None:
        orders = []
        for seed in (1, 1, 2):
            board = FakeBoard()
            _search(board, Wish(seed=seed))
            orders.append([cells for cells, _ in board.asked])
        cells = tuning.cells(ALL, pi(), Wish())

        assert orders[0] == orders[1]
        assert orders[0][0] != orders[2][0]
        assert orders[0][0] != cells
        assert sorted(map(str, orders[0][0])) == sorted(map(str, cells))

    def test_few_are_measured_in_full_at_once(self) -> None:
        board = FakeBoard()
        _search(board, axes=Axes(threads=(1, 2, 4), runtimes=("ai-edge-litert",)))

        assert [(len(cells), method) for cells, method in board.asked] == [(3, FULL)]

    def test_everybody_who_is_out_knows_why(self) -> None:
        found = _search(FakeBoard())

        reasons = [entry.out for entry in found.ranking if entry.rung == 1]
        assert len(found.ranking) == 16
        assert all(reason is not None and reason.startswith("slower in round 1: p50 ") for reason in reasons)
        assert found.ranking[0].out is None

    def test_one_that_is_as_fast_with_fewer_threads_is_the_better_pick(self) -> None:
        class Flat(FakeBoard):
            def truth_ns(self, configuration: Configuration) -> float:
                return 4e6 + configuration.inference.num_threads

        found = _search(Flat(noise=0.001), axes=Axes(threads=(2, 1, 3), runtimes=("ai-edge-litert",)))

        assert _inference(found.best).num_threads == 1

    def test_a_measurement_that_lacks_cells_is_refused(self) -> None:
        search = tuning.begin(tuning.cells(ALL, pi(), Wish()), FULL, Wish())

        with pytest.raises(BoardError, match="16 configurations were asked for and 0 measured"):
            search.hearing(())


class TestWhoLoses:
    def test_a_fast_wrong_cell(self) -> None:
        clean = FakeBoard()
        winner = _search(clean).best
        assert winner is not None
        board = FakeBoard(wrong=(winner.configuration,))

        found = _search(board)

        assert found.best is not None
        assert found.best.configuration != winner.configuration
        (loser,) = [entry for entry in found.ranking if entry.configuration == winner.configuration]
        assert loser.out == "wrong: 7 of 8 golden vectors are reproduced"
        assert loser is found.ranking[-1]

    def test_one_whose_delegate_is_not_used(self) -> None:
        axes = Axes(threads=(1,), delegates=(None, DelegateConfig(library="missing.so")))

        found = _search(FakeBoard(), axes=axes)

        assert _inference(found.best).delegate is None
        assert "delegate: it is not used (it is missing)" in [entry.out for entry in found.ranking]

    def test_one_that_crashed_and_the_others_go_on(self) -> None:
        board = FakeBoard(failing={4: CellError(kind="crashed", message="SIGSEGV while loading")})

        found = _search(board)

        assert _inference(found.best).num_threads == 3
        assert [entry.out for entry in found.ranking].count("crashed: SIGSEGV while loading") == 4

    def test_all_of_them_where_all_crash(self) -> None:
        error = CellError(kind="out_of_memory", message="killed")
        board = FakeBoard(failing=dict.fromkeys((1, 2, 3, 4), error))

        found = _search(board)

        assert found.best is None
        assert found.by_runtime == ()
        assert len(board.asked) == 1
        assert "16 of 16 can't be served so, whatever their speed" in found.explanation

    def test_one_that_takes_too_much_memory(self) -> None:
        found = _search(FakeBoard(rss_bytes=121 << 20), Wish(max_rss_mib=120))

        assert found.best is None
        assert {entry.out for entry in found.ranking} == {"memory: 121.0 MiB, at most 120 MiB may be"}

    def test_one_above_the_limit_of_the_p99_already_by_its_median(self) -> None:
        found = _search(FakeBoard(), Wish(max_p99_ms=3.0))

        assert found.best is not None
        assert found.best.cell is not None
        assert found.best.cell.measurement is not None
        assert (tuning.value(found.best.cell.measurement, "p99") or 0) <= 3e6
        assert any((entry.out or "").endswith("at most 3 ms may be") for entry in found.ranking)

    def test_one_whose_p99_was_not_shown(self) -> None:
        class Slow(FakeBoard):
            def truth_ns(self, configuration: Configuration) -> float:
                del configuration
                return 3e8

        found = _search(Slow(), Wish(max_p99_ms=1000.0), axes=Axes(threads=(1,)))

        assert found.best is None
        assert any("200 of the 662 runs that a p99 takes; give --max-seconds more" in it for it in found.explanation)


class TestObjectives:
    @pytest.mark.parametrize("objective", tuning.OBJECTIVES)
    def test_each_finds_its_best(self, objective: tuning.Objective) -> None:
        board = FakeBoard()
        found = _search(board, Wish(objective=objective), axes=replace(ALL, batches=(1, 8)))

        # Threads cost more processor time than they save; batches are faster by the sample, not by the query.
        assert (_inference(found.best).num_threads == 1) == (objective == "cpu")
        assert found.best is not None
        assert (found.best.configuration.batch == 8) == (objective == "throughput")
        assert found.served is not None
        assert found.served.configuration.batch == 1
        assert found.statistic == objective

    def test_a_first_round_without_runs_for_a_p99_is_ranked_by_what_all_have(self) -> None:
        search = tuning.begin(tuning.cells(ALL, pi(), Wish()), FULL, Wish(objective="p99"))

        search = tuning.run(search, FakeBoard())

        assert search.ranked_by[0] == "p50"
        assert search.ranked_by[-1] == "p99"

    def test_each_runtime_has_a_best_of_its_own(self) -> None:
        found = _search(FakeBoard())

        assert {_inference(entry).runtime for entry in found.by_runtime} == {"tflite-runtime", "ai-edge-litert"}
        assert found.served in found.by_runtime


def test_batches_alone_leave_nothing_to_be_served() -> None:
    found = _search(FakeBoard(), axes=Axes(threads=(1,), runtimes=("tflite-runtime",), batches=(4,)))

    assert found.best is not None
    assert found.served is None
    assert "the pick runs several samples at once, serving runs one: nothing is kept; try --batch 1, too" in (
        found.explanation
    )
    assert found.explanation[0] == "1 configuration, in one round, order by seed 0"
