"""From output tensors to an answer: the best classes, or the boxes of a detector.

Classes are ranked on the raw numbers, because dequantization keeps their order, and only the winners are turned into
scores; ties go to the lower index on every machine. What it does NOT do: non-maximum suppression. Detectors end in the
TFLite_Detection_PostProcess op, which has done it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.messages import Candidate
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tflotilla.shared.contract.processing import Postprocessing
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.runtime import Tensor

_DETECTION_OUTPUTS = 4
#: Scores are reported with six decimals: more would double the size of a message and say nothing.
_DECIMALS = 6
#: Answers of quantized models repeat; this many of them are kept ready-made, a few hundred KiB at most.
_KEPT = 4096


class Answerer:
    """Turns the outputs of one model into candidates, best first."""

    def __init__(self, postprocessing: Postprocessing, specs: tuple[TensorSpec, ...], labels: Sequence[str]) -> None:
        """Choose how.

        Raises:
            ModelError: the outputs are not those of that kind of model.

        """
        self._post = postprocessing
        self._specs = specs
        self._labels = tuple(labels)
        self._kept: dict[tuple[int, int], Candidate] = {}
        if postprocessing.kind == "raw":
            self.answer: Callable[[tuple[Tensor, ...]], tuple[Candidate, ...]] = _no_answer
            return
        if any(spec.dtype in ("string", "bool") for spec in specs) or not specs:
            message = f"{postprocessing.kind} needs numbers in output 0; use postprocessing raw"
            raise ModelError(message)
        if postprocessing.kind == "detection":
            if len(specs) != _DETECTION_OUTPUTS:
                message = f"detection reads 4 outputs (boxes, classes, scores, count), the model has {len(specs)}"
                raise ModelError(message)
            self.answer = self._detect
        elif postprocessing.softmax:
            self.answer = self._classify_logits
        elif specs[0].dtype in ("uint8", "int8"):
            self.answer = self._classify_bytes
        else:
            self.answer = self._classify

    def label(self, index: int) -> str:
        """Return the label of a class, or its number where there is none."""
        return self._labels[index] if 0 <= index < len(self._labels) else str(index)

    def _classify_bytes(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        scores = outputs[0].reshape(-1)
        kept = self._kept
        top = []
        for index in best(scores, self._post.top_k):
            key = (index, int(scores[index]))
            candidate = kept.get(key)
            if candidate is None:
                if len(kept) >= _KEPT:
                    kept.clear()
                score = float(dequantize(scores[index], self._specs[0]))
                candidate = kept[key] = self._candidate(index, score)
            top.append(candidate)
        return tuple(top)

    def _classify(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        scores = outputs[0].reshape(-1)
        indices = best(scores, self._post.top_k)
        real = scores[indices] if self._specs[0].quantization is None else dequantize(scores[indices], self._specs[0])
        return tuple([self._candidate(i, score) for i, score in zip(indices, real.tolist())])  # noqa: B905 - equal lengths

    def _classify_logits(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        logits = dequantize(outputs[0], self._specs[0]).reshape(-1).astype(np.float64)
        exponents = np.exp(logits - logits.max())
        scores = exponents / exponents.sum()
        return tuple([self._candidate(i, float(scores[i])) for i in best(logits, self._post.top_k)])

    def _detect(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        boxes, classes, scores, count = (
            dequantize(tensor, spec).reshape(-1)
            for tensor, spec in zip(outputs, self._specs)  # noqa: B905 - four each
        )
        found = min(int(count[0]), len(scores)) if len(count) else 0
        shown: list[Candidate] = []
        for i in best(scores[:found], found):
            if scores[i] < self._post.score_threshold or len(shown) == self._post.top_k:
                break
            box = tuple(round(min(max(edge, 0.0), 1.0), _DECIMALS) for edge in boxes[4 * i : 4 * i + 4].tolist())
            shown.append(self._candidate(int(classes[i]), float(scores[i]), box))
        return tuple(shown)

    def _candidate(self, index: int, score: float, box: tuple[float, ...] | None = None) -> Candidate:
        if not math.isfinite(score):
            # An infinite or undefined score is a broken model, and no number of JSON.
            message = f"the model gave class {index} the score {score}"
            raise ModelError(message)
        return Candidate(label=self.label(index), index=index, score=round(score, _DECIMALS), box=box)


def best(scores: NDArray[Any], count: int) -> list[int]:
    """Return the indices of the `count` highest scores of a vector, best first, the lower index first among equals.

    A NaN comes first, so that it is noticed. A few maxima cost less than any sort.
    """
    count = min(count, len(scores))
    if count > _FEW:
        # Unsigned numbers can't be negated: sort the reversed vector instead, and turn the result around.
        order = len(scores) - 1 - np.argsort(scores[::-1], kind="stable")[::-1]
        return [int(i) for i in order[:count]]
    if count == 1:
        return [int(scores.argmax())]
    rest = scores.copy()
    lowest = rest.min()
    indices: list[int] = []
    for _ in range(count):
        index = int(rest.argmax())
        if rest[index] == lowest:
            # Only the lowest are left, among them those already taken: the first free ones follow.
            free = (i for i, score in enumerate(scores) if score == lowest and i not in indices)
            indices.extend(i for i, _ in zip(free, range(count - len(indices))))  # noqa: B905 - as many as are missing
            break
        indices.append(index)
        rest[index] = lowest
    return indices


_FEW = 8


def _no_answer(outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:  # noqa: ARG001 - the signature of an answer
    return ()
