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
_BATCHED_VECTOR = 2
#: Fewer are answered one by one.
_MANY = 4
_TAKEN = np.iinfo(np.int16).min


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
        self._ranks_bytes = False
        self._kept: dict[tuple[int, float], Candidate] = {}
        self._lowest = _LOWEST["b" if specs and specs[0].dtype == "int8" else "B"]
        quantization = specs[0].quantization if specs else None
        self._scale, self._zero_point = (
            (1.0, 0) if quantization is None else (quantization.scales[0], quantization.zero_points[0])
        )
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
        elif specs[0].dtype in ("uint8", "int8") and postprocessing.top_k <= _FEW:
            self.answer = self._classify_bytes
            self._ranks_bytes = True
        else:
            self.answer = self._classify

    def answer_many(self, many: Sequence[tuple[Tensor, ...]]) -> list[tuple[Candidate, ...]] | None:
        """Answer many inferences as `answer` answers each, for a fraction of its price; None where that can't be had.

        It can for the classes of a quantized model, unless one of the answers is an error.
        """
        count = self._post.top_k
        if not self._ranks_bytes or len(many) < _MANY or len({outputs[0].shape for outputs in many}) > 1:
            return None
        # Wider than the model's numbers, so that what was taken ranks below everything else.
        scores = np.concatenate([outputs[0] for outputs in many], dtype=np.int16).reshape(len(many), -1)
        if scores.shape[1] < count:
            return None
        rows = np.arange(len(many))
        columns = []
        for _ in range(count):
            indices = scores.argmax(axis=1)
            columns.append(zip(indices.tolist(), scores[rows, indices].tolist()))  # noqa: B905 - one of each per row
            scores[rows, indices] = _TAKEN
        kept = self._kept
        answers: list[tuple[Candidate, ...]] = []
        try:
            for pairs in zip(*columns):  # noqa: B905 - of one length
                try:
                    answers.append(tuple([kept[pair] for pair in pairs]))
                except KeyError:
                    answers.append(self._remember(pairs))
        except ModelError:
            return None
        return answers

    def label(self, index: int) -> str:
        """Return the label of a class, or its number where there is none."""
        return self._labels[index] if 0 <= index < len(self._labels) else str(index)

    def _classify_bytes(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        # Written out flat: after milliseconds of invoke the caches hold nothing of ours, and every function, object and
        # line of numpy that is touched costs a microsecond. `best` says what this does.
        scores = outputs[0]
        scores = scores[0] if scores.ndim == _BATCHED_VECTOR else scores.reshape(-1)
        kept, lowest, count = self._kept, self._lowest, self._post.top_k
        ranked = []
        for _ in range(count):
            index = int(scores.argmax())
            value = scores.item(index)
            if value == lowest:
                break
            ranked.append((index, value))
            scores[index] = lowest
        for index, value in ranked:  # the outputs are the caller's
            scores[index] = value
        if len(ranked) < count:
            ranked = _fill(ranked, count, scores.size, lowest)
        try:
            return tuple([kept[pair] for pair in ranked])
        except KeyError:
            return self._remember(ranked)

    def _remember(self, ranked: Sequence[tuple[int, float]]) -> tuple[Candidate, ...]:
        if len(self._kept) + len(ranked) > _KEPT:
            self._kept.clear()
        return tuple([self._kept.setdefault(pair, self._candidate(*pair)) for pair in ranked])

    def _classify(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        return tuple([self._candidate(index, value) for index, value in best(outputs[0], self._post.top_k)])

    def _classify_logits(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        logits = dequantize(outputs[0], self._specs[0]).reshape(-1).astype(np.float64)
        exponents = np.exp(logits - logits.max())
        whole = float(exponents.sum())
        # Ranked by logit: two that differ may have the same score.
        return tuple([self._shown(i, float(exponents[i]) / whole) for i, _ in best(logits, self._post.top_k)])

    def _detect(self, outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:
        boxes, classes, scores, count = (
            dequantize(tensor, spec).reshape(-1)
            for tensor, spec in zip(outputs, self._specs)  # noqa: B905 - four each
        )
        found = min(_whole(count.item(0)), len(scores)) if len(count) else 0
        shown: list[Candidate] = []
        for i, score in best(scores[:found], found):
            if score < self._post.score_threshold or len(shown) == self._post.top_k:
                break
            box = tuple(round(min(max(edge, 0.0), 1.0), _DECIMALS) for edge in boxes[4 * i : 4 * i + 4].tolist())
            shown.append(self._shown(_whole(classes.item(i)), score, box))
        return tuple(shown)

    def _candidate(self, index: int, value: float) -> Candidate:
        return self._shown(index, self._scale * (value - self._zero_point))

    def _shown(self, index: int, score: float, box: tuple[float, ...] | None = None) -> Candidate:
        if not math.isfinite(score):
            # An infinite or undefined score is a broken model, and no number of JSON.
            message = f"the model gave class {index} the score {score}"
            raise ModelError(message)
        return Candidate(label=self.label(index), index=index, score=round(score, _DECIMALS), box=box)


def _whole(number: float) -> int:
    if not math.isfinite(number):
        message = f"the model gave {number} where the number of a class or of boxes belongs"
        raise ModelError(message)
    return int(number)


def best(scores: NDArray[Any], count: int) -> list[tuple[int, float]]:
    """Return (index, value) of the `count` highest numbers, best first, the lower index first among equals.

    The array is read as a vector and left as it is. A NaN comes first, so that it is noticed. Three of 1001 cost a
    tenth of a sort; short vectors are faster as a list, where every call into numpy weighs.
    """
    length = scores.size
    count = min(count, length)
    lowest = _LOWEST[scores.dtype.char]
    if count > _FEW:
        return _sorted(scores, count)
    if length > _SHORT:
        return _best_of_many(scores.flatten(), count, lowest)
    values = scores.reshape(-1).tolist()
    if (total := sum(values)) != total:
        return _sorted(scores, count)
    ranked: list[tuple[int, float]] = []
    for _ in range(count):
        value = max(values)
        if value == lowest:
            return _fill(ranked, count, length, lowest)
        index = values.index(value)
        ranked.append((index, value))
        values[index] = lowest
    return ranked


_FEW = 8
_SHORT = 24
#: By dtype.char: np.iinfo builds an object each time.
_LOWEST: dict[str, float] = {
    **dict.fromkeys("efd", -math.inf),
    **{char: int(np.iinfo(char).min) for char in np.typecodes["AllInteger"]},
}


def _best_of_many(rest: NDArray[Any], count: int, lowest: float) -> list[tuple[int, float]]:
    ranked: list[tuple[int, float]] = []
    for _ in range(count):
        index = int(rest.argmax())
        value = rest.item(index)
        if value == lowest:
            return _fill(ranked, count, rest.size, lowest)
        ranked.append((index, value))
        rest[index] = lowest
    return ranked


def _fill(ranked: list[tuple[int, float]], count: int, length: int, lowest: float) -> list[tuple[int, float]]:
    """Add the first of those that are left, when all that are left are as low as the dtype goes."""
    taken = {index for index, _ in ranked}
    free = (index for index in range(length) if index not in taken)
    return [*ranked, *((index, lowest) for index, _ in zip(free, range(count - len(ranked))))]  # noqa: B905 - one ends first


def _sorted(scores: NDArray[Any], count: int) -> list[tuple[int, float]]:
    vector = scores.reshape(-1)
    # Unsigned numbers can't be negated: sort the reversed vector upwards, and turn the result around.
    order = vector.size - 1 - np.argsort(vector[::-1], kind="stable")[::-1]
    return [(index, vector.item(index)) for index in order[:count].tolist()]


def _no_answer(outputs: tuple[Tensor, ...]) -> tuple[Candidate, ...]:  # noqa: ARG001 - the signature of an answer
    return ()
