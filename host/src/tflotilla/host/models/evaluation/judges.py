"""Outputs to scores: right classes, found boxes, likeness to the float model.

Each judge reduces a chunk of outputs to a few numbers (`look`, in any thread), keeps them (`add`) and gives a verdict
at the end, the same whatever the order of the chunks. The first entry of `outputs` is the model that is judged, the
second, where there is one, the float model beside it. What it does NOT do: run anything.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tflotilla.host.models import average_precision, metrics
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import detections
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.average_precision import LabelledBox
    from tflotilla.host.models.evaluation.answering import Output, Outputs
    from tflotilla.shared.contract.processing import Preprocessing
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.detections import Detection

TOP = 5
_YES = 0.5
#: Answers that are right but for a shift are right at least so often, and without the shift at most so often.
_SHIFTED_RIGHT, _UNSHIFTED_RIGHT = 0.3, 0.1
_LEAST_HINTED = 10
#: Scores are counted in tenths, rounded as a board rounds what it reports.
_SCORE_BINS, _DECIMALS = 10, 6


class Classes(NamedTuple):
    """What one model answered to a chunk."""

    best: NDArray[np.int64]
    #: Whether a given class is among the best five; None where none was given.
    among: NDArray[np.bool_] | None


def read_classes(output: Output, spec: TensorSpec, wanted: NDArray[np.int64] | None) -> Classes:
    """Return the best class of each sample, the lower one of equals, and whether `wanted` is among the best five.

    Raises:
        ModelError: the best score is not a number.

    """
    scores = np.asarray(output).reshape(len(output), -1)
    rows = np.arange(len(scores))
    if scores.shape[1] == 1:
        real = dequantize(scores, spec)[:, 0]
        _refuse_strange(np.zeros(len(real), dtype=np.int64), real)
        yes = (real > _YES).astype(np.int64)
        return Classes(yes, None if wanted is None else yes == wanted)
    best = scores.argmax(axis=1)
    _refuse_strange(best, scores[rows, best])
    if wanted is None:
        return Classes(best, None)
    own = scores[rows, wanted][:, np.newaxis]
    before = np.arange(scores.shape[1]) < wanted[:, np.newaxis]
    rank = (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    return Classes(best, rank < TOP)


def _refuse_strange(best: NDArray[np.int64], scores: NDArray[Any]) -> None:
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        wrong = int(np.argmin(np.isfinite(scores)))
        raise ModelError(f"the model gave class {best[wrong]} the score {scores[wrong]}")


class Winners(NamedTuple):
    """What a board would answer to a chunk: the best class of each sample, and its score in two readings."""

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    #: Of a model whose outputs are logits.
    softmax_scores: NDArray[np.float64]


def winners(output: Output, spec: TensorSpec) -> Winners:
    """Return the best class of each sample, the lower one of equals; of one output it is always that one."""
    real = dequantize(np.asarray(output), spec).reshape(len(output), -1).astype(np.float64)
    best = real.argmax(axis=1)
    highest = real[np.arange(len(real)), best]
    with np.errstate(over="ignore", invalid="ignore"):
        softmax = 1.0 / np.exp(real - highest[:, np.newaxis]).sum(axis=1)
    return Winners(best, highest.round(_DECIMALS), softmax.round(_DECIMALS))


def tenths(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count scores in tenths from 0 to 1, which belongs to the last; what lies beyond is in none, as on a board."""
    within = scores[(scores >= 0) & (scores <= 1)]
    return np.bincount(np.minimum(within * _SCORE_BINS, _SCORE_BINS - 1).astype(np.intp), minlength=_SCORE_BINS)


class ClassJudge:
    """Top-1, top-5, and agreement with the float model; labels may be absent."""

    def __init__(self, labels: NDArray[np.int64] | None, specs: Sequence[TensorSpec]) -> None:
        """Take the label of each sample, and the only output of each competitor."""
        self._labels = labels
        self._specs = specs
        self._classes = math.prod(abs(size) for size in specs[0].shape)
        self._right = self._among = self._float_right = self._float_among = 0
        self._agreed = self._agreed_among = self._count = 0
        self._lost = self._won = 0
        self._shifted = {-1: 0, 1: 0}
        self._winners: Counter[int] = Counter()
        self._scores = np.zeros((2, _SCORE_BINS), dtype=np.int64)

    def look(self, rows: NDArray[np.int64], outputs: Sequence[Outputs]) -> dict[str, Any]:
        """Count what is right, and what is answered."""
        wanted = None if self._labels is None else self._labels[rows]
        mine = read_classes(outputs[0][0], self._specs[0], wanted)
        won = winners(outputs[0][0], self._specs[0])
        counts: dict[str, Any] = {
            "count": len(rows),
            "winners": Counter(won.indices.tolist()),
            "scores": np.stack([tenths(won.scores), tenths(won.softmax_scores)]),
        }
        if wanted is not None and mine.among is not None:
            counts |= {"right": int((mine.best == wanted).sum()), "among": int(mine.among.sum())}
            counts |= {f"shifted{by:+d}": int((mine.best == wanted + by).sum()) for by in self._shifted}
        if len(outputs) > 1:
            reference = read_classes(outputs[1][0], self._specs[1], wanted)
            same = read_classes(outputs[1][0], self._specs[1], mine.best)
            counts["agreed"] = int((mine.best == reference.best).sum())
            counts["agreed_among"] = 0 if same.among is None else int(same.among.sum())
            if wanted is not None and reference.among is not None:
                counts["float_right"] = int((reference.best == wanted).sum())
                counts["float_among"] = int(reference.among.sum())
                right, float_right = mine.best == wanted, reference.best == wanted
                counts |= {"lost": int((float_right & ~right).sum()), "won": int((right & ~float_right).sum())}
        return counts

    def add(self, seen: Mapping[str, Any]) -> None:
        """Sum the counts."""
        self._count += seen["count"]
        self._winners += seen["winners"]
        self._scores += seen["scores"]
        self._right += seen.get("right", 0)
        self._among += seen.get("among", 0)
        self._float_right += seen.get("float_right", 0)
        self._agreed += seen.get("agreed", 0)
        self._agreed_among += seen.get("agreed_among", 0)
        self._lost += seen.get("lost", 0)
        self._won += seen.get("won", 0)
        for by in self._shifted:
            self._shifted[by] += seen.get(f"shifted{by:+d}", 0)

    def verdict(self) -> dict[str, Any]:
        """Return shares of the samples; those that were not asked for are absent."""
        found: dict[str, Any] = {
            "answers": {
                "winners": {str(index): count for index, count in sorted(self._winners.items())},
                "scores": self._scores[0].tolist(),
                "softmax_scores": self._scores[1].tolist(),
            }
        }
        many = self._classes > TOP
        if self._labels is not None:
            found["accuracy"] = self._right / self._count
            found["top5"] = self._among / self._count if many else None
            found["hint"] = self._hint()
        if len(self._specs) > 1:
            found["agreement"] = self._agreed / self._count
            found["top5_agreement"] = self._agreed_among / self._count if many else None
            if self._labels is not None:
                found["float_value"] = self._float_right / self._count
                found |= {"lost": self._lost, "won": self._won}
        return found

    def _hint(self) -> str | None:
        if self._count < _LEAST_HINTED or self._right > _UNSHIFTED_RIGHT * self._count:
            return None
        by = max(self._shifted, key=lambda each: self._shifted[each])
        if self._shifted[by] < _SHIFTED_RIGHT * self._count:
            return None
        return (
            f"{self._shifted[by]:,} of {self._count:,} answers are the label {by:+d}: the labels are off by one; "
            f"give --label-offset {by} more"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What lies between a picture and what the model saw of it, to bring boxes back."""

    resize: str
    height: int
    width: int

    def to_picture(self, box: tuple[float, ...], size: tuple[int, int]) -> tuple[float, ...]:
        """Return a box of the model's input (ymin, xmin, ymax, xmax as shares) as shares of a picture of that size.

        The same arithmetic as `preprocessing` resizes by: `crop` cuts the centre out, `pad` puts the picture there.
        """
        if self.resize == "stretch":
            return box
        wide, high = size
        horizontal, vertical = self.width / wide, self.height / high
        scale = max(horizontal, vertical) if self.resize == "crop" else min(horizontal, vertical)
        share_x, share_y = self.width / scale / wide, self.height / scale / high
        ymin, xmin, ymax, xmax = box
        return (
            0.5 + (ymin - 0.5) * share_y,
            0.5 + (xmin - 0.5) * share_x,
            0.5 + (ymax - 0.5) * share_y,
            0.5 + (xmax - 0.5) * share_x,
        )


def frame(preprocessing: Preprocessing, spec: TensorSpec) -> Frame:
    """Return the frame of a model's image input."""
    return Frame(resize=preprocessing.resize, height=spec.shape[1], width=spec.shape[2])


class BoxJudge:
    """Average precision per class at an intersection over union of 0.5, of each competitor."""

    def __init__(
        self,
        boxes: Sequence[Sequence[LabelledBox]],
        sizes: Sequence[tuple[int, int]],
        specs: Sequence[Sequence[TensorSpec]],
        orders: Sequence[Sequence[int]],
        frames: Sequence[Frame],
    ) -> None:
        """Take the labelled boxes and the size of each picture, and what each competitor's outputs are."""
        self._boxes = boxes
        self._sizes = sizes
        self._specs = specs
        self._orders = orders
        self._frames = frames
        self._found: dict[int, list[tuple[Detection, ...]]] = {}

    def look(self, rows: NDArray[np.int64], outputs: Sequence[Outputs]) -> dict[int, list[tuple[Detection, ...]]]:
        """Read the detections of each picture, one entry per competitor."""
        return {
            int(row): [self._read(i, outputs[i], number, int(row)) for i in range(len(outputs))]
            for number, row in enumerate(rows)
        }

    def _read(self, competitor: int, outputs: Outputs, number: int, row: int) -> tuple[Detection, ...]:
        order, specs = self._orders[competitor], self._specs[competitor]
        found = detections.read([outputs[place][number] for place in order], [specs[place] for place in order]).found
        return tuple(
            detections.Detection(
                index=each.index,
                score=each.score,
                box=self._frames[competitor].to_picture(each.box, self._sizes[row]),
            )
            for each in found
        )

    def add(self, seen: dict[int, list[tuple[Detection, ...]]]) -> None:
        """Keep the detections."""
        self._found |= seen

    def verdict(self) -> dict[str, Any]:
        """Return mAP, and per class the average precision and the number of labelled boxes."""
        rows = sorted(self._found)
        labelled = [self._boxes[row] for row in rows]
        counts = average_precision.box_counts(labelled)
        values = [
            average_precision.per_class([self._found[row][competitor] for row in rows], labelled)
            for competitor in range(len(self._specs))
        ]
        found: dict[str, Any] = {
            "map": average_precision.mean(values[0]),
            "classes": [
                {"index": index, "average_precision": value, "boxes": counts[index]}
                for index, value in values[0].items()
            ],
            "hint": self._hint(rows, labelled, values[0]),
        }
        if len(values) > 1:
            found["float_value"] = average_precision.mean(values[1])
        return found

    def _hint(
        self, rows: Sequence[int], labelled: Sequence[Sequence[LabelledBox]], values: Mapping[int, float]
    ) -> str | None:
        """Look whether the boxes would be right if the labels counted from another number."""
        if average_precision.mean(values) > _UNSHIFTED_RIGHT:
            return None
        for by in (-1, 1):
            shifted = [
                [
                    average_precision.LabelledBox(
                        index=each.index + by, box=each.box, ignored=each.ignored, crowd=each.crowd
                    )
                    for each in boxes
                ]
                for boxes in labelled
            ]
            value = average_precision.mean(average_precision.per_class([self._found[row][0] for row in rows], shifted))
            if value > _SHIFTED_RIGHT:
                return f"mAP is {value:.2f} for labels {by:+d}: they are off by one; give --label-offset {by} more"
        return None


class LikenessJudge:
    """Cosine and SQNR of every output against the float model's."""

    def __init__(self, specs: Sequence[Sequence[TensorSpec]], pairs: Sequence[tuple[int, int]]) -> None:
        """Take the outputs of both competitors, and which output of the first is which of the second."""
        self._specs = specs
        self._pairs = [pair for pair in pairs if "string" not in (specs[0][pair[0]].dtype, specs[1][pair[1]].dtype)]
        self._sums = np.zeros((len(self._pairs), 4))

    def look(self, rows: NDArray[np.int64], outputs: Sequence[Outputs]) -> NDArray[np.float64]:
        """Return, per output: samples compared, sum of their cosines, signal and noise power."""
        del rows
        return np.array(
            [
                _likeness(outputs[0][mine], self._specs[0][mine], outputs[1][other], self._specs[1][other])
                for mine, other in self._pairs
            ]
        ).reshape(-1, 4)

    def add(self, seen: NDArray[np.float64]) -> None:
        """Sum."""
        self._sums += seen

    def verdict(self) -> dict[str, Any]:
        """Return the outputs, worst first.

        Raises:
            ModelError: in no sample any output had the float model's shape.

        """
        found = [
            {
                "name": self._specs[0][mine].name,
                "cosine": float(cosines / count),
                "sqnr_db": metrics.sqnr_db(float(signal), float(noise)),
                "samples": int(count),
            }
            for (mine, _), (count, cosines, signal, noise) in zip(self._pairs, self._sums, strict=True)
            if count
        ]
        if not found:
            raise ModelError("no output has the shape of the reference's, so nothing can be compared")
        return {"outputs": sorted(found, key=lambda each: (each["sqnr_db"], each["cosine"], each["name"]))}


def _likeness(
    mine: Output, spec: TensorSpec, other: Output, other_spec: TensorSpec
) -> tuple[float, float, float, float]:
    compared, cosines, signal, noise = 0, 0.0, 0.0, 0.0
    for one, reference in zip(mine, other, strict=True):
        if one.size != reference.size or not one.size:
            continue  # as many as the values say: boxes found, say
        expected = dequantize(reference, other_spec).astype(np.float64).reshape(-1)
        actual = dequantize(one, spec).astype(np.float64).reshape(-1)
        usable = np.isfinite(expected)
        expected, actual = expected[usable], actual[usable]
        compared += 1
        cosines += metrics.cosine(expected, actual)
        signal += float(expected @ expected)
        noise += float(np.sum((expected - actual) ** 2)) if np.isfinite(actual).all() else math.inf
    return compared, cosines, signal, noise
