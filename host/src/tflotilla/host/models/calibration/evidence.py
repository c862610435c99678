"""What speaks for and against a preprocessing: values, and the numbers that are read off them. Pure.

    misfit       at a layer that remembers its training data (`memories`): Kullback-Leibler divergence of the Gaussian
                 that the samples make from the one remembered, mean over the channels (each capped), in nats; 0: equal.
                 A memory of a short training still holds some of its beginning, and gets the benefit of the doubt
    lean         along the line from what the samples make in the given order of colours (0) to what they make with red
                 and blue exchanged (1): where the remembered means lie. Below one half for the right order.
    confidence   mean of the highest class probability
    information  entropy of the mean answer less the mean entropy of the answers, in nats: certain, and various
    margin       median difference of the two highest log probabilities: trained classifiers stay below 10

What it does NOT do: decide; `suspicion` does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.processing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.calibration.memories import Moments

#: Of the median remembered variance: channels that training silenced would make any difference infinite.
_FLOOR = 1e-3
_MOST_NATS = 50.0
#: Shares of the most that can be left of a memory's beginning, ever finer towards all of it: there little more or less
#: of it is much of what training saw.
_PARTS = (*(1.0 - np.geomspace(1e-5, 1.0, 60)).tolist(),)
_LEAST_PROBABILITY = 1e-30
_SUM_SLACK = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a classifier says of the samples; `confidences` has one number per sample."""

    confidences: tuple[float, ...]
    information: float
    margin: float

    @property
    def confidence(self) -> float:
        """The mean of the highest class probability."""
        return float(np.mean(self.confidences))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One preprocessing, and what is known of how it suits the model."""

    preprocessing: Preprocessing
    misfit: float | None = None
    answers: Answers | None = None
    accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lean:
    """Which order of colours the remembered means speak for; `strength` is how far the two orders are apart."""

    lean: float
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known about the samples and the model; the first fit is the given preprocessing's."""

    samples: int
    fits: tuple[Fit, ...] = ()
    #: The layer that remembers, None when there is none.
    layer: str | None = None
    #: For the given range, and for the range that fits best.
    lean: Lean | None = None
    lean_of_best: Lean | None = None
    #: Mean of the pixels, 0..255, and of red less blue as the given order has them; None for other data than images.
    brightness: float | None = None
    warmth: float | None = None
    #: Whether what is taken for red is red: so in image files, while arrays may hold either order.
    order_known: bool = False
    #: Labelled samples behind the accuracies.
    labelled: int = 0
    #: Whether the data are pixels that `--preprocess` is applied to, or floats that came preprocessed.
    pixels: bool = True


def misfit(remembered: Moments, seen: Moments) -> float:
    """Return how far what is seen lies from what is remembered, in nats; see the module's words."""
    floor = _FLOOR * float(np.median(remembered.variance)) + np.finfo(np.float64).tiny
    expected, actual = remembered.variance + floor, seen.variance + floor
    nats = 0.5 * (actual / expected + (seen.mean - remembered.mean) ** 2 / expected - 1.0 - np.log(actual / expected))
    return float(np.mean(np.minimum(nats, _MOST_NATS)))


def without_beginning(remembered: Moments, share: float) -> Moments:
    """Return what training saw, when `share` of the memory is still what it began with: mean 0, variance 1.

    Moving averages forget their beginning slowly: with a momentum of 0.99, a third is left after 100 steps.
    """
    variance = np.maximum((remembered.variance - share) / (1.0 - share), 0.0)
    return dataclasses.replace(remembered, mean=remembered.mean / (1.0 - share), variance=variance)


def kindest(remembered: Moments, seen: Moments) -> tuple[float, Moments]:
    """Return the least misfit, and the memory it is of, over all shares of the beginning that may be left in it.

    More can't be left than the smallest variance: what training saw had none below 0.
    """
    most = min(1.0, float(remembered.variance.min()))
    memories = [without_beginning(remembered, most * part) for part in _PARTS]
    return min(((misfit(memory, seen), memory) for memory in memories), key=lambda entry: entry[0])


def lean(remembered: Moments, seen: Moments, exchanged: Moments) -> Lean:
    """Return where the remembered means lie between those of the two orders of colours."""
    floor = _FLOOR * float(np.median(remembered.variance)) + np.finfo(np.float64).tiny
    deviation = np.sqrt(remembered.variance + floor)
    way, found = (exchanged.mean - seen.mean) / deviation, (remembered.mean - seen.mean) / deviation
    length = float(way @ way)
    return Lean(lean=float(way @ found) / length if length else 0.0, strength=float(np.sqrt(length / len(way))))


def answers(outputs: Sequence[NDArray[Any]]) -> Answers | None:
    """Read a classifier's outputs, one of (classes,) per sample: probabilities or logits; None for other models."""
    if not outputs or any(output.dtype.kind != "f" or output.size != outputs[0].size for output in outputs):
        return None
    rows = np.stack([output.astype(np.float64).reshape(-1) for output in outputs])
    if any(output.size != output.shape[-1] for output in outputs) or not np.isfinite(rows).all():
        return None
    logs = _log_probabilities(rows)
    if logs is None:
        return None
    probabilities = np.exp(logs)
    ranked = np.sort(logs, axis=1)
    return Answers(
        confidences=tuple(float(value) for value in probabilities.max(axis=1)),
        information=max(
            0.0, _entropy(probabilities.mean(axis=0)) - float(np.mean([_entropy(p) for p in probabilities]))
        ),
        margin=float(np.median(ranked[:, -1] - ranked[:, -2])),
    )


def _log_probabilities(rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if rows.shape[1] == 1:
        if rows.min() < 0.0 or rows.max() > 1.0:
            return None
        # One sigmoid: no or yes.
        rows = np.concatenate([1.0 - rows, rows], axis=1)
    if rows.min() >= 0.0 and np.allclose(rows.sum(axis=1), 1.0, atol=_SUM_SLACK):
        logs: NDArray[np.float64] = np.log(np.maximum(rows, _LEAST_PROBABILITY))
        return logs
    if rows.min() >= 0.0:
        return None  # neither probabilities nor, ever, all logits
    highest = rows.max(axis=1, keepdims=True)
    logits: NDArray[np.float64] = rows - highest - np.log(np.exp(rows - highest).sum(axis=1, keepdims=True))
    return logits


def _entropy(probabilities: NDArray[np.float64]) -> float:
    held = probabilities[probabilities > 0.0]
    return float(-(held * np.log(held)).sum())
