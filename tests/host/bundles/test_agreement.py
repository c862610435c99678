"""Whom to believe when runtimes disagree, which inputs to keep, and how close boards must come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tflotilla.host.bundles.agreement import AGREEMENT_SHARE, Agreement, Variant, judge
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEW = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
OLD = RuntimeOffer(name="tflite-runtime", version="2.14.0")
FAST, PLAIN = Variant(runtime=NEW, xnnpack=True), Variant(runtime=NEW, xnnpack=False)
OLD_PLAIN = Variant(runtime=OLD, xnnpack=False)
COUNT = 4


def _scores(candidates: int = 16, seed: int = 0) -> list[NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 200, (1, 10)).astype(np.uint8) for _ in range(candidates)]


def _judge(*runs: tuple[Variant, list[NDArray[Any]]], reference: str | None = None) -> Agreement:
    return judge(
        {variant: [(output,) for output in outputs] for variant, outputs in runs}, count=COUNT, reference=reference
    )


def test_equal_outputs_leave_one_step_for_processors_not_seen_here() -> None:
    scores = _scores()

    found = _judge((FAST, scores), (PLAIN, scores), (OLD_PLAIN, scores))

    assert found.reference == FAST
    assert found.tolerance_lsb == 1
    assert found.refused == {}
    assert len(found.chosen) == COUNT


def test_inputs_are_kept_on_which_the_runtimes_agree_closest() -> None:
    scores = _scores()
    steady = (1, 5, 9, 13)
    other = [s if i in steady else s + 9 for i, s in enumerate(scores)]

    found = _judge((FAST, scores), (OLD_PLAIN, other))

    assert found.chosen == steady
    assert found.spread.lsb == 0
    assert found.tolerance_lsb == 1


def test_what_the_runtimes_still_differ_by_is_tolerated() -> None:
    scores = _scores()

    found = _judge((FAST, scores), (OLD_PLAIN, [s + 3 for s in scores]))

    assert found.tolerance_lsb == 4
    assert set(found.agreeing) == {FAST, OLD_PLAIN}


def test_a_runtime_of_all_zeros_is_not_believed_and_is_recorded() -> None:
    """ai-edge-quantizer's dynamic models on tflite-runtime 2.14: they load, and compute nothing."""
    zeros = [np.zeros_like(s) for s in _scores()]

    found = _judge((OLD_PLAIN, zeros), (FAST, _scores()))

    assert found.reference == FAST
    assert found.refused == {OLD_PLAIN: "all its outputs are 0"}
    assert found.not_reproduced_by == (OLD,)


def test_a_runtime_of_nan_is_not_believed() -> None:
    good = [s.astype(np.float32) for s in _scores()]
    bad = [np.full_like(s, np.nan) for s in good]

    assert _judge((FAST, bad), (OLD_PLAIN, good)).refused == {FAST: "its outputs are not finite numbers"}


def test_the_greater_group_is_believed() -> None:
    scores = _scores()
    wrong = _scores(seed=9)

    found = _judge((FAST, wrong), (PLAIN, scores), (OLD_PLAIN, scores))

    assert found.reference == PLAIN
    assert list(found.refused) == [FAST]
    assert "differs from ai-edge-litert==2.3.0 by up to" in found.refused[FAST]


def test_a_runtime_that_is_right_in_one_way_of_two_is_not_ruled_out() -> None:
    """Its XNNPACK kernels go wrong; without them it serves."""
    scores = _scores()

    found = _judge((FAST, _scores(seed=9)), (PLAIN, scores), (OLD_PLAIN, scores))

    assert found.not_reproduced_by == ()


def test_two_against_each_other_are_left_to_the_user_with_the_figures() -> None:
    with pytest.raises(ModelError, match=r"disagree by \d+ LSB \(\d+% .*--reference"):
        _judge((FAST, _scores()), (OLD_PLAIN, _scores(seed=9)))


def test_the_user_decides_whom_to_believe() -> None:
    found = _judge((FAST, _scores()), (OLD_PLAIN, _scores(seed=9)), reference="tflite-runtime")

    assert found.reference == OLD_PLAIN
    assert found.not_reproduced_by == (NEW,)


def test_nobody_can_decide_for_a_runtime_that_computes_nothing() -> None:
    zeros = [np.zeros_like(s) for s in _scores()]

    with pytest.raises(ModelError, match="all its outputs are 0"):
        _judge((FAST, _scores()), (OLD_PLAIN, zeros), reference="tflite-runtime")


def test_zeros_everywhere_are_kept_with_a_warning() -> None:
    """A detector that sees nothing may be right; but such goldens prove little."""
    zeros = [np.zeros_like(s) for s in _scores()]

    found = _judge((FAST, zeros), (OLD_PLAIN, zeros))

    assert found.warning is not None
    assert "prove little" in found.warning


def test_nan_everywhere_is_refused() -> None:
    bad = [np.full((1, 10), np.nan, dtype=np.float32)] * 8

    with pytest.raises(ModelError, match="computes nothing"):
        _judge((FAST, bad), (OLD_PLAIN, bad))


def test_one_answer_to_every_input_is_warned_of() -> None:
    same = [np.arange(10, dtype=np.uint8).reshape(1, 10)] * 8

    assert "same output" in (_judge((FAST, same)).warning or "")


def test_inputs_with_an_answer_of_their_own_come_first() -> None:
    scores = _scores(candidates=8)
    outputs = [scores[0]] * 4 + scores[4:]

    chosen = _judge((FAST, outputs)).chosen

    assert sum(i < 4 for i in chosen) <= 1


def test_a_single_runtime_is_believed() -> None:
    found = _judge((OLD_PLAIN, _scores()))

    assert found.agreeing == (OLD_PLAIN,)
    assert found.tolerance_lsb == 1


def test_other_shapes_are_a_disagreement_and_no_crash() -> None:
    scores = _scores()

    found = _judge((FAST, scores), (PLAIN, scores), (OLD_PLAIN, [s[:, :5] for s in scores]))

    assert list(found.refused) == [OLD_PLAIN]


def test_a_float_output_made_of_steps_is_given_one_step() -> None:
    """An integer model with float outputs: another processor may round one step further."""
    steps = [s.astype(np.float32) / 256 for s in _scores()]

    assert _judge((FAST, steps)).tolerance_absolute == pytest.approx(1 / 256, rel=0.01)


def test_float_outputs_get_twice_what_was_seen() -> None:
    generator = np.random.default_rng(3)
    real = [generator.random((1, 10)).astype(np.float32) for _ in range(16)]

    found = _judge((FAST, real), (OLD_PLAIN, [r + np.float32(1e-3) for r in real]))

    assert found.tolerance_absolute == pytest.approx(2e-3, rel=0.01)


def test_one_tolerance_for_many_outputs_never_swallows_the_smallest() -> None:
    """Class numbers move in steps of 1; scores between 0 and 1 must still mean something."""
    generator = np.random.default_rng(3)
    runs = [
        (generator.integers(0, 90, (1, 10)).astype(np.float32), generator.random((1, 10)).astype(np.float32))
        for _ in range(16)
    ]

    found = judge({FAST: runs}, count=COUNT)

    assert found.tolerance_absolute <= AGREEMENT_SHARE
