"""The decisions of pruning, clustering and quantization-aware training: pure, exhaustive, without TensorFlow."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tflotilla.host.models.compression import (
    masks,
    selection,
    tasks,
)
from tflotilla.host.models.compression.schedule import Schedule, ScheduleOptions, plan
from tflotilla.host.models.compression.tasks import Task
from tflotilla.shared.contract.errors import ModelError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# How sparse at each step


def test_the_polynomial_is_zhus_and_guptas() -> None:
    found, notes = plan(ScheduleOptions(end_step=100, frequency=25), 200)

    assert notes == ()
    assert [round(found.sparsity_at(step), 6) for step in (0, 25, 50, 75, 100, 150)] == [
        0.5,
        round(0.9 - 0.4 * 0.75**3, 6),
        round(0.9 - 0.4 * 0.5**3, 6),
        round(0.9 - 0.4 * 0.25**3, 6),
        0.9,
        0.9,
    ]
    assert [step for step in range(201) if found.updates_at(step)] == [0, 25, 50, 75, 100]


def test_the_power_bends_the_polynomial() -> None:
    straight = Schedule(
        kind="polynomial", initial_sparsity=0.0, final_sparsity=0.8, begin_step=0, end_step=4, frequency=1, power=1.0
    )

    assert [straight.sparsity_at(step) for step in range(5)] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])


def test_a_constant_schedule_asks_for_the_end_at_once() -> None:
    found, _ = plan(ScheduleOptions(kind="constant", final_sparsity=0.7, begin_step=10, end_step=30, frequency=10), 40)

    assert {found.sparsity_at(step) for step in range(40)} == {0.7}
    assert [step for step in range(41) if found.updates_at(step)] == [10, 20, 30]


@pytest.mark.parametrize(
    ("total", "begin", "end", "frequency"),
    [
        (total, begin, end, frequency)
        for total, begin, end, frequency in itertools.product((1, 2, 7, 100, 5000), (0, 1, 3), (None, 5), (None, 1, 4))
        if begin < total and (end is None or end <= total)
    ],
)
def test_every_schedule_that_fits_reaches_its_end_in_a_batch_that_comes(
    total: int, begin: int, end: int | None, frequency: int | None
) -> None:
    found, _ = plan(ScheduleOptions(begin_step=begin, end_step=end, frequency=frequency), total)

    updates = [step for step in range(1, total + 1) if found.updates_at(step)]
    assert updates
    assert updates[-1] == found.end_step <= (end or total)
    assert found.sparsity_at(updates[-1]) == 0.9


def test_an_end_that_is_no_update_is_moved_down_and_said() -> None:
    found, notes = plan(ScheduleOptions(begin_step=0, end_step=99, frequency=10), 100)

    assert found.end_step == 90
    assert notes == ("the schedule ends at step 90: of every 10 steps the last one up to 99",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "linear"}, "polynomial or constant"),
        ({"final_sparsity": 1.0}, "--final-sparsity 1: expected a share"),
        ({"final_sparsity": 90}, "like 0.9 for 90 %"),
        ({"initial_sparsity": -0.1}, "--initial-sparsity"),
        ({"final_sparsity": float("nan")}, "--final-sparsity nan"),
        ({"initial_sparsity": 0.9, "final_sparsity": 0.5}, "only removes weights"),
        ({"begin_step": -1}, "--begin-step -1"),
        ({"begin_step": 20, "end_step": 10}, "--end-step 10 is before --begin-step 20"),
        ({"frequency": 0}, "--frequency 0"),
        ({"power": 0}, "--power 0"),
        ({"begin_step": 50}, "never reached: training has 50 steps"),
        ({"end_step": 51}, "--end-step 51 is never reached"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        plan(ScheduleOptions(**options), 50)


# Which weights stay


@pytest.mark.parametrize("shape", [(7,), (10, 10), (3, 3, 2, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.875, 0.99])
def test_the_greatest_magnitudes_stay_and_exactly_as_many_as_asked(shape: tuple[int, ...], sparsity: float) -> None:
    weights = np.random.default_rng(1).normal(size=shape)

    mask = masks.magnitude_mask(weights, sparsity)

    kept = np.abs(weights[mask])
    assert mask.shape == shape
    assert mask.sum() == max(1, round(weights.size * (1 - sparsity)))
    assert mask.all() or kept.min() >= np.abs(weights[~mask]).max()


def test_of_equal_magnitudes_the_first_stay_and_no_more() -> None:
    mask = masks.magnitude_mask(np.ones(8), 0.5)

    assert mask.tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (1, 2), (3, 8)])
@pytest.mark.parametrize(("shape", "axis"), [((16, 5), -2), ((3, 3, 10, 4), -2), ((2, 2, 3, 9), -1)])
def test_n_of_m_neighbours_stay_along_the_axis_that_is_summed_up(
    kept: int, group: int, shape: tuple[int, ...], axis: int
) -> None:
    weights = np.random.default_rng(2).normal(size=shape)
    pattern = masks.Pattern(kept=kept, group=group)

    mask = masks.pattern_mask(weights, pattern, axis)

    assert masks.obeys(weights * mask, pattern, axis)
    rows = np.moveaxis(np.abs(weights), axis, -1).reshape(-1, shape[axis])
    stays = np.moveaxis(mask, axis, -1).reshape(-1, shape[axis])
    for row, stay in zip(rows, stays, strict=True):
        for start in range(0, len(row), group):
            part = row[start : start + group]
            expected = sorted(np.sort(part)[::-1][:kept])
            assert sorted(part[stay[start : start + group]]) == expected


def test_two_of_four_with_two_channels_removes_nothing() -> None:
    weights = np.ones((3, 3, 2, 8))

    assert masks.pattern_mask(weights, masks.Pattern(kept=2, group=4), -2).all()


def test_blocks_stay_or_go_whole_by_their_mean() -> None:
    weights = np.array([[4.0, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [1.0, 3.0], [1.0, 3.0], [1.0, 3.0], [1.0, 3.0]])
    pattern = masks.parse_pattern("1x4")

    mask = masks.block_mask(weights, 0.5, pattern, 0)

    assert mask.tolist() == [[True, False]] * 4 + [[False, True]] * 4
    assert masks.obeys(weights * mask, pattern, 0)
    assert not masks.obeys(weights * (np.arange(16).reshape(8, 2) % 4 == 0), pattern, 0)


@pytest.mark.parametrize("text", ["5:4", "4:4", "0:4", "2:", "two:four", "", "1x8", "2:400", "-1:4"])
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="like 2:4"):
        masks.parse_pattern(text)


def test_patterns_are_read_and_written_alike() -> None:
    assert [str(masks.parse_pattern(text)) for text in ("2:4", " 1:2 ", "1x4")] == ["2:4", "1:2", "1x4"]
    assert masks.parse_pattern("1:4").sparsity == 0.75
    assert masks.parse_pattern("1x4").sparsity is None


# Which layers are meant

PRUNABLE = ("conv", "backbone/block_1", "backbone/block_2", "dense")
OTHERS = ("input", "backbone", "flatten")


@pytest.mark.parametrize(
    ("wanted", "skipped", "expected"),
    [
        ((), (), PRUNABLE),
        (("dense",), (), ("dense",)),
        (("block_*",), (), ("backbone/block_1", "backbone/block_2")),
        (("backbone",), (), ("backbone/block_1", "backbone/block_2")),
        (("backbone/block_2",), (), ("backbone/block_2",)),
        ((), ("backbone", "conv"), ("dense",)),
        ((), ("flatten",), PRUNABLE),
        (("*",), ("block_1",), ("conv", "backbone/block_2", "dense")),
    ],
)
def test_layers_are_chosen_by_name_path_glob_or_nested_model(
    wanted: tuple[str, ...], skipped: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert selection.choose(PRUNABLE, OTHERS, wanted=wanted, skipped=skipped, doing="pruned") == expected


@pytest.mark.parametrize(
    ("wanted", "skipped", "words"),
    [
        (("dens",), (), "no such layer; the nearest are dense"),
        (("xyzzyx",), (), "no such layer; it has conv, "),
        (("flatten",), (), "has no weights that are pruned"),
        ((), ("denze",), "--skip-layers 'denze'.*dense"),
        ((), ("*",), "leaves no layer"),
    ],
)
def test_a_wrong_layer_is_refused_with_the_nearest(
    wanted: tuple[str, ...], skipped: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        selection.choose(PRUNABLE, OTHERS, wanted=wanted, skipped=skipped, doing="pruned")


def test_names_may_be_repeated_or_separated() -> None:
    assert selection.parse(["a, b", "c", ""]) == ("a", "b", "c")


# What is trained

SOFT = np.array([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])


@pytest.mark.parametrize(
    ("loss", "activation", "outputs", "labelled", "expected"),
    [
        ("auto", "softmax", SOFT, True, Task.CLASSES),
        ("auto", None, SOFT, True, Task.CLASSES),
        ("auto", "linear", SOFT, True, Task.CLASSES),
        ("auto", "linear", SOFT * 7, True, Task.CLASSES_FROM_LOGITS),
        ("auto", "sigmoid", SOFT[:, :1], True, Task.BINARY),
        ("auto", None, SOFT[:, :1], True, Task.BINARY),
        ("auto", "linear", SOFT[:, :1], True, Task.BINARY_FROM_LOGITS),
        ("auto", "sigmoid", SOFT, True, Task.BINARY),
        ("auto", "relu", SOFT, False, Task.RECONSTRUCTION),
        ("mse", "relu", SOFT, False, Task.RECONSTRUCTION),
        ("binary_crossentropy", "softmax", SOFT, True, Task.BINARY_FROM_LOGITS),
    ],
)
def test_the_task_is_told_by_outputs_and_data(
    loss: str,
    activation: str | None,
    outputs: NDArray[Any],
    labelled: bool,  # noqa: FBT001 - a table
    expected: Task,
) -> None:
    assert tasks.choose(loss, activation, outputs, labelled=labelled) is expected


@pytest.mark.parametrize(
    ("loss", "labelled", "outputs", "words"),
    [
        ("hinge", True, SOFT, "expected one of auto"),
        ("sparse_categorical_crossentropy", False, SOFT, "needs labels"),
        ("mse", True, SOFT, "for autoencoders"),
        ("sparse_categorical_crossentropy", True, SOFT[:, :1], "an output per class"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(loss: str, labelled: bool, outputs: NDArray[Any], words: str) -> None:  # noqa: FBT001 - a table
    with pytest.raises(UsageError, match=words):
        tasks.choose(loss, None, outputs, labelled=labelled)


def test_targets_have_the_form_of_the_outputs() -> None:
    labels = np.array([0, 2])

    assert tasks.targets(Task.CLASSES, labels, (3,)).tolist() == [0, 2]
    assert tasks.targets(Task.CLASSES, labels, (1, 1, 3)).shape == (2, 1, 1)
    assert tasks.targets(Task.BINARY, labels, (3,)).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert tasks.targets(Task.BINARY, np.array([0, 1]), (1,)).tolist() == [[0], [1]]


def test_right_answers_are_counted_as_evaluate_counts_them() -> None:
    assert tasks.right(Task.CLASSES, SOFT, np.array([2, 1])) == 1
    assert tasks.right(Task.BINARY, np.array([[0.6], [0.4]]), np.array([1, 1])) == 1
    assert tasks.right(Task.BINARY_FROM_LOGITS, np.array([[0.4], [-0.1]]), np.array([1, 0])) == 2


@pytest.mark.parametrize("shape", [(None, 7, 7, 10), (None, None), (None,)])
def test_an_output_that_is_not_one_score_per_class_is_no_classifier(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ModelError, match="not one score per class"):
        tasks.check_outputs(shape, where="m.keras")
