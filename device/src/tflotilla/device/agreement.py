"""Whether two bundles say the same to an input, whatever numbers they call their classes by.

Classes agree when the same label wins. Detections agree as sets: every box that either reports has one of the same
label on the other side, at about the same place and with about the same score; the partner may lie a little below the
threshold. Labels are compared as texts, because a model that was trained again may list them in another order.

What it does NOT do: run a model, or decide how much agreement is enough (a rollout's gates do).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.inference import detections
from tflotilla.shared.inference.detections import Detections
from tflotilla.shared.statistics import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tflotilla.shared.contract.manifest import Manifest
    from tflotilla.shared.contract.messages import Candidate
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.runtime import Tensor

#: Boxes of two trainings: as alike as the usual word for "the same object", and scores that move a little.
MIN_IOU = 0.5
SCORE_TOLERANCE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one bundle said: the winner, None where there is none, and a detector's boxes, all of them."""

    label: str | None = None
    score: float | None = None
    found: Detections | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One input to one bundle; `answer` is None where the model failed on it."""

    answer: Answer | None
    taken_ns: int


def objection(champion: Manifest, challenger: Manifest) -> str | None:
    """Say why the answers of two bundles can't be compared; None when they can."""
    one, other = champion.postprocessing.kind, challenger.postprocessing.kind
    if one != other:
        return f"what serves answers with {one}, the candidate with {other}"
    if one == "raw":
        return "both give raw numbers, and no answer that could be compared"
    return None


class Agreement:
    """Compares the answers of two bundles of one kind."""

    def __init__(self, champion: Manifest) -> None:
        """What the champion would not report is no detection that the challenger lacks."""
        self._detects = champion.postprocessing.kind == "detection"
        self._floor = champion.postprocessing.score_threshold
        #: One number for each label, whichever bundle said it.
        self._numbers: dict[str, int] = {}

    def answer(
        self,
        outputs: Sequence[Tensor],
        specs: Sequence[TensorSpec],
        top: Sequence[Candidate],
        label: Callable[[int], str],
    ) -> Answer:
        """Return what outputs say; `top` is what is reported of them. Raises ModelError for what is no detector's."""
        best = top[0] if top else None
        answer = Answer(label=best.label, score=best.score) if best else Answer()
        if not self._detects:
            return answer
        found = detections.read(outputs, specs)
        numbers = self._numbers
        return replace(
            answer,
            found=replace(
                found,
                found=tuple(
                    replace(each, index=numbers.setdefault(label(each.index), len(numbers))) for each in found.found
                ),
            ),
        )

    def same(self, one: Answer, other: Answer) -> bool:
        """Whether both say the same."""
        if one.found is None or other.found is None:
            return one.label == other.label
        if max(one.found.best, other.found.best) < self._floor:
            return True
        # The side that reports something is asked for partners first: where it reports nothing, noise would be asked.
        first, second = (one.found, other.found) if one.found.best >= self._floor else (other.found, one.found)
        matching = detections.match(first, second, floor=self._floor, score_tolerance=SCORE_TOLERANCE, min_iou=MIN_IOU)
        return not matching.lost and not matching.extra

    def report(self, champion: Sequence[Seen | None], challenger: Sequence[Seen | None]) -> ShadowReport:
        """Sum up, input by input; None is an input that could not be read.

        An input on which the champion itself fails has no answer to agree with. One on which only the challenger fails
        is one on which they differ.
        """
        pairs = [
            (one, other, one.answer)
            for one, other in zip(champion, challenger)  # noqa: B905 - what there was no time for is left out
            if one is not None and other is not None and one.answer is not None
        ]
        if not pairs:
            return ShadowReport(inputs=0, agreed=0, reason="no input could be answered by what serves, and in time")
        agreed = sum(other.answer is not None and self.same(answer, other.answer) for _one, other, answer in pairs)
        return ShadowReport(
            inputs=len(pairs),
            agreed=agreed,
            champion_score=_mean(answer.score for _one, _other, answer in pairs),
            challenger_score=_mean(other.answer.score for _one, other, _answer in pairs if other.answer is not None),
            champion_p50_ns=percentile(sorted(one.taken_ns for one, _other, _answer in pairs), 50),
            challenger_p50_ns=percentile(sorted(other.taken_ns for _one, other, _answer in pairs), 50),
        )


def _mean(scores: Iterable[float | None]) -> float | None:
    given = [score for score in scores if score is not None]
    return sum(given) / len(given) if given else None
