"""Operators timed by differences: the arithmetic with a clock that moves when told, the whole with real runtimes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import catalogue, models_made
from tests.device import children
from tflotilla.device.benchmark import graph_windows, inputs, operators
from tflotilla.device.benchmark.operators import Clocks, Plan, Step
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.runtime import Inspectable, LoadOptions, Node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.shared.contract.benchmark import OperatorProfile

_MS = 1_000_000
_GRAPH = graph_windows.read(models_made.read("tiny_classifier"))
_NODES = tuple(Node(op, taken=False) for op in ("QUANTIZE", "FULLY_CONNECTED", "SOFTMAX", "QUANTIZE"))


class _Clock:
    """Time that passes only while something runs; every call takes what it says, times what else goes on."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slowdown = 1.0
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now_ns

    def takes(self, name: str, ns: int) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now_ns += int(ns * self.slowdown)

        return call

    @property
    def clocks(self) -> Clocks:
        return Clocks(passing=self, working=self)


def _inference(**fields: object) -> InferenceConfig:
    return codec.decode(InferenceConfig, {"runtime": children.RUNTIMES[-1], **fields}, "test")


def _step(begin: int, end: int, median_ms: float, *, pairs: int = 7) -> Step:
    return Step(
        begin=begin,
        end=end,
        first_ns=2 * _MS,
        median_ns=median_ms * _MS,
        lower_ns=0.1 * _MS * (begin == 0),
        pairs=pairs,
    )


def _summary(*steps: Step, wholes_ms: tuple[float, ...] = (10,) * 8, refill: bool = True) -> OperatorProfile:
    return operators.summarize(
        _GRAPH,
        _NODES,
        steps,
        wholes=[int(whole * _MS) for whole in wholes_ms],
        plan=Plan(stride=1, refill=refill),
        inference=_inference(),
        runtime="a runtime",
    )


def test_a_difference_is_what_one_graph_takes_longer_whatever_the_order() -> None:
    clock = _Clock()

    taken, lowers, wholes = operators.paired_differences(
        clock.takes("upper", 7 * _MS),
        clock.takes("lower", 4 * _MS),
        clock.takes("whole", 30 * _MS),
        refill=True,
        until_ns=0,
        latest_ns=10**18,
        clocks=clock.clocks,
    )

    assert taken == [3 * _MS] * 5
    assert lowers == [4 * _MS] * 5
    assert wholes == [30 * _MS] * 5
    assert clock.calls[:8] == ["whole", "lower", "upper", "whole", "upper", "lower", "whole", "lower"]


def test_without_the_time_for_it_the_whole_model_runs_once_to_warm_up_and_once_timed() -> None:
    clock = _Clock()

    taken, lowers, wholes = operators.paired_differences(
        clock.takes("upper", 7),
        clock.takes("lower", 4),
        clock.takes("whole", 30),
        refill=False,
        until_ns=0,
        latest_ns=10**18,
        clocks=clock.clocks,
    )

    assert taken == [3] * 5
    assert lowers == [4] * 5
    assert wholes == [30]
    assert clock.calls[:4] == ["whole", "whole", "lower", "upper"]


def test_where_it_is_too_long_the_whole_model_does_not_run_at_all() -> None:
    clock = _Clock()

    taken, _, wholes = operators.paired_differences(
        clock.takes("upper", 7),
        clock.takes("lower", 4),
        None,
        refill=False,
        until_ns=0,
        latest_ns=10**18,
        clocks=clock.clocks,
    )

    assert taken == [3] * 5
    assert wholes == []


def test_a_model_that_takes_minutes_is_not_run_again_and_again() -> None:
    clock = _Clock()
    calls = clock.takes("upper", 300), clock.takes("lower", 100), clock.takes("whole", 1000)

    taken, _, _ = operators.paired_differences(*calls, refill=True, until_ns=0, latest_ns=2000, clocks=clock.clocks)

    assert taken == [200] * 2


def test_pairs_are_taken_until_the_time_is_over_and_never_more_than_400() -> None:
    clock = _Clock()

    def pairs(until_ns: int) -> int:
        calls = clock.takes("upper", 2), clock.takes("lower", 1), clock.takes("whole", 7)
        return len(
            operators.paired_differences(*calls, refill=True, until_ns=until_ns, latest_ns=10**18, clocks=clock.clocks)[
                0
            ]
        )

    assert pairs(clock.now_ns + 10 * 20) == 20
    assert pairs(clock.now_ns + 10 * 9999) == 400


@pytest.mark.parametrize(
    ("whole_ms", "left_s", "plan"),
    [
        (2, 60, Plan(stride=1, refill=True)),
        (200, 60, Plan(stride=1, refill=False)),
        (1000, 60, Plan(stride=2, refill=False)),
        (60_000, 1, Plan(stride=67, refill=False)),
    ],
)
def test_less_time_is_used_up_by_the_refilling_first_then_by_lines_for_several(
    whole_ms: int, left_s: int, plan: Plan
) -> None:
    assert plan == operators.plan_for(67, load_ns=30 * _MS, whole_ns=whole_ms * _MS, left_ns=left_s * 1000 * _MS)


def test_a_profile_says_how_well_it_adds_up() -> None:
    good = _summary(_step(0, 1, 1), _step(1, 2, 6), _step(2, 3, 2), _step(3, 4, 0.8))
    bad = _summary(_step(0, 1, 1), _step(1, 2, 6), _step(2, 3, 0.5), _step(3, 4, 0.5))

    assert "with the 0.1000 ms of a call without operators, is 99% of the whole model's median" in good.note
    assert "does not add up" not in good.note
    assert "81% of the whole model's median" in bad.note
    assert "does not add up" in bad.note
    assert [(row.node_type, row.name, row.avg_ms, row.first_ms) for row in good.operators] == [
        ("QUANTIZE", "image_int8", 1, 2),
        ("FULLY_CONNECTED", "logits", 6, 2),
        ("SOFTMAX", "scores_int8", 2, 2),
        ("QUANTIZE", "scores", 0.8, 2),
    ]
    assert good.whole_ms == 10


def test_what_another_hand_runs_when_it_is_cut_out_is_told() -> None:
    said = "XNNPACK or a delegate runs 3 of the operators"

    assert said not in _summary(_step(0, 1, 1), _step(1, 4, 9)).note
    assert said in _summary(replace(_step(0, 1, 1), otherwise=1), replace(_step(1, 4, 9), otherwise=2)).note


def test_xnnpack_is_kept_off_the_parts_of_a_model_that_it_takes_nothing_of() -> None:
    # tflite-runtime gives XNNPACK no model with shapes that only a run finds out, and some of its operators alone.
    if "tflite-runtime" not in children.RUNTIMES:
        pytest.skip("tflite-runtime is not here")
    model = catalogue.path("models/troublesome_tflite/dynamic_shapes.tflite")
    whole = runtimes.find("tflite-runtime").load(model.read_bytes(), LoadOptions())
    assert isinstance(whole, Inspectable)
    assert whole.nodes_taken == 0

    zeros = tuple(np.zeros(spec.shape, np.float32) for spec in whole.inputs)
    found = operators.profile(model, _inference(runtime="tflite-runtime"), zeros, seconds=0.3)

    assert "takes nothing of this model" in found.note
    assert "their times are of something else" not in found.note
    assert not any(row.delegated for row in found.operators)


def test_what_is_below_zero_is_shown_as_zero_and_counted() -> None:
    found = _summary(_step(0, 1, -0.5), _step(1, 2, 10), _step(2, 4, 0.1))

    assert found.operators[0].avg_ms == 0
    assert "1 of 3 came out below zero" in found.note
    assert "is 102% of the whole" in found.note
    assert "As they were measured, the sum is 97%." in found.note


def test_operators_that_share_a_line_are_named_from_the_first_to_the_last() -> None:
    found = _summary(_step(0, 1, 1), _step(1, 4, 9))

    assert found.operators[1].node_type == "3 operators"
    assert found.operators[1].name == "FULLY_CONNECTED logits … QUANTIZE scores"
    assert "several operators: 1" in found.note


def test_a_board_that_became_slower_meanwhile_is_told_of() -> None:
    steady = _summary(_step(0, 4, 10))
    slower = _summary(_step(0, 4, 10), wholes_ms=(10, 10, 10, 10, 10, 10, 12, 12), refill=False)

    assert "not steady" not in steady.note
    assert "took +20% at the end" in slower.note
    assert "caches were warmer" in slower.note


def test_processor_time_is_taken_where_one_thread_does_everything() -> None:
    alone, together = operators.clocks_for(_inference()), operators.clocks_for(_inference(num_threads=2))
    delegated = operators.clocks_for(_inference(delegate={"library": "npu.so"}))

    assert alone.working is not alone.passing
    assert together.working is together.passing
    assert delegated.working is delegated.passing


@pytest.mark.parametrize("runtime", children.RUNTIMES)
@pytest.mark.parametrize("xnnpack", [True, False])
def test_each_runtime_profiles_a_model(tmp_path: Path, runtime: str, *, xnnpack: bool) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(models_made.read("tiny_classifier"))
    image = inputs.stack([(models_made.pattern(3).reshape(1, 8, 8, 1),)])

    found = operators.profile(model, _inference(runtime=runtime, xnnpack=xnnpack), image, seconds=0.3)

    assert found.xnnpack == xnnpack
    assert [row.node_type for row in found.operators] == ["QUANTIZE", "FULLY_CONNECTED", "SOFTMAX", "QUANTIZE"]
    assert [row.name for row in found.operators] == ["image_int8", "logits", "scores_int8", "scores"]
    assert found.whole_ms > 0
    assert all(row.avg_ms >= 0 and row.times_called == 1 for row in found.operators)
    if not xnnpack:
        assert not any(row.delegated for row in found.operators)


def test_several_samples_at_once_are_profiled_too(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(models_made.read("tiny_classifier"))
    images = inputs.stack([(models_made.pattern(label).reshape(1, 8, 8, 1),) for label in range(4)])

    found = operators.profile(model, _inference(), images, seconds=0.3, batch=4)

    assert len(found.operators) == 4


def test_a_model_that_the_runtime_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(models_made.read("custom_op"))

    with pytest.raises(ModelError, match="refuses the model"):
        operators.profile(model, _inference(), (), seconds=1)


def test_inputs_that_do_not_fit_are_an_error_of_ours(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(models_made.read("tiny_classifier"))

    with pytest.raises(ModelError, match="inputs do not fit"):
        operators.profile(model, _inference(), (), seconds=1)
