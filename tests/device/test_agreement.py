"""When two answers are the same: labels as texts, boxes as sets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.device import agreement
from tflotilla.device.agreement import Agreement, Answer, Seen
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.manifest import GOLDENS, MODEL, FileEntry, GoldenPolicy, Manifest, ModelRequirements
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.shared.inference.runtime import Tensor

_FILE = FileEntry(size=1, sha256="0" * 64)
MANIFEST = Manifest(
    schema=1,
    name="boxes",
    version="1",
    release=1,
    created="2026-01-01T00:00:00Z",
    scheme=QuantizationScheme.FLOAT32,
    files={MODEL: _FILE, GOLDENS: _FILE},
    requirements=ModelRequirements(ops=()),
    inputs=(),
    outputs=(),
    preprocessing=None,
    postprocessing=Postprocessing(kind="detection", score_threshold=0.5),
    goldens=GoldenPolicy(count=1, runtime="x"),
)
SPECS = tuple(TensorSpec(name=name, shape=(), dtype="float32") for name in ("boxes", "classes", "scores", "count"))
ROOM = 5
HERE, THERE = (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)
NEAR_HERE = (0.12, 0.1, 0.42, 0.4)
Box = tuple[float, float, float, float]
#: Class, score, place.
Found = tuple[int, float, Box]
CAT: Found = (0, 0.9, HERE)
DOG: Found = (1, 0.8, THERE)


def _outputs(*found: Found) -> tuple[Tensor, ...]:
    rows = [*found, *[(0, 0.0, (0.0, 0.0, 0.0, 0.0))] * (ROOM - len(found))]
    return (
        np.array([[box for _, _, box in rows]], dtype=np.float32),
        np.array([[index for index, _, _ in rows]], dtype=np.float32),
        np.array([[score for _, score, _ in rows]], dtype=np.float32),
        np.array([len(found)], dtype=np.float32),
    )


def _labels(*names: str) -> Callable[[int], str]:
    return lambda index: names[index]


CATS_FIRST, DOGS_FIRST = _labels("cat", "dog"), _labels("dog", "cat")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((CAT, DOG), (DOG, CAT), True),
        ((CAT,), ((0, 0.75, NEAR_HERE),), True),
        ((), (), True),
        ((), ((0, 0.2, HERE), (1, 0.49, THERE)), True),
        (((0, 0.55, HERE),), ((0, 0.45, HERE),), True),
        ((CAT, DOG), (CAT,), False),
        ((CAT,), (CAT, DOG), False),
        ((CAT,), ((1, 0.9, HERE),), False),
        ((CAT,), ((0, 0.9, THERE),), False),
        ((CAT,), ((0, 0.6, HERE),), False),
        ((), (CAT,), False),
        (((0, 0.1, THERE),), (CAT,), False),
    ],
    ids=[
        "another order",
        "a little aside and less sure",
        "nothing",
        "only what nobody is told",
        "a partner a little below the threshold",
        "one lost",
        "one more",
        "another class",
        "another place",
        "much less sure",
        "something for nothing",
        "something for noise",
    ],
)
def test_boxes_agree_as_sets(one: tuple[Found, ...], other: tuple[Found, ...], *, same: bool) -> None:
    comparing = Agreement(MANIFEST)
    answers = [comparing.answer(_outputs(*found), SPECS, (), CATS_FIRST) for found in (one, other)]

    assert comparing.same(answers[0], answers[1]) is same
    assert comparing.same(answers[1], answers[0]) is same


def test_boxes_agree_by_their_labels_and_not_by_their_numbers() -> None:
    comparing = Agreement(MANIFEST)
    one = comparing.answer(_outputs(CAT), SPECS, (), CATS_FIRST)

    assert comparing.same(one, comparing.answer(_outputs((1, 0.9, HERE)), SPECS, (), DOGS_FIRST))
    assert not comparing.same(one, comparing.answer(_outputs(CAT), SPECS, (), DOGS_FIRST))


def test_what_is_no_detector_s_answer_is_an_error() -> None:
    boxes, classes, scores, count = _outputs(CAT)
    with pytest.raises(ModelError, match="NaN"):
        Agreement(MANIFEST).answer((boxes, classes, scores * np.float32("nan"), count), SPECS, (), CATS_FIRST)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("classification", "classification"), None),
        (("detection", "detection"), None),
        (("classification", "detection"), "classification"),
        (("raw", "raw"), "raw numbers"),
    ],
)
def test_only_answers_of_one_kind_are_compared(kinds: tuple[str, str], words: str | None) -> None:
    one, other = (replace(MANIFEST, postprocessing=Postprocessing(kind=kind)) for kind in kinds)  # type: ignore[arg-type]

    found = agreement.objection(one, other)

    assert (found is None) == (words is None)
    assert (words or "") in (found or "")


def _seen(label: str | None, taken_ns: int = 100, *, score: float = 0.5) -> Seen:
    return Seen(answer=None if label is None else Answer(label=label, score=score), taken_ns=taken_ns)


def test_a_report_counts_what_both_could_answer() -> None:
    champion = [_seen("a", 10), _seen("b", 20, score=1.0), None, _seen(None), _seen("c", 30, score=0.75)]
    challenger = [_seen("a", 40, score=0.5), _seen("x", 50, score=0.25), _seen("y"), _seen("z"), _seen(None, 60)]

    report = Agreement(replace(MANIFEST, postprocessing=Postprocessing())).report(champion, challenger)

    assert report == ShadowReport(
        inputs=3,
        agreed=1,
        champion_score=0.75,
        challenger_score=0.375,
        champion_p50_ns=20,
        challenger_p50_ns=50,
    )


def test_a_candidate_that_answers_nothing_agrees_with_nothing() -> None:
    report = Agreement(replace(MANIFEST, postprocessing=Postprocessing())).report([_seen("a")] * 3, [_seen(None)] * 3)

    assert (report.inputs, report.agreed, report.challenger_score) == (3, 0, None)


def test_a_champion_that_answers_nothing_is_a_reason() -> None:
    report = Agreement(MANIFEST).report([_seen(None)], [_seen("a")])

    assert (report.inputs, report.agreed) == (0, 0)
    assert "could be answered by what serves" in (report.reason or "")
