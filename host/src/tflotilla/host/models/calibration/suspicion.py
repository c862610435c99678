"""Whether calibration images can be what a model was trained on, said in sentences. Pure: evidence in, warnings out.

Measured on real models with their right preprocessing and with eleven wrong ones (ADR 9 has the tables): three
MobileNets and a ResNet with batch normalization, a SqueezeNet and a MobileNet without; photos of 28 objects,
flowers, single photos, and the same made blue, dark, bright, gray. With 16 samples and more the right one never
warned.

    misfit    the given range is at least `LEAST_MISFIT` off, and another one fits `_ratio` times better
    lean      the remembered means lie nearer to the other order of colours: > `MOST_LEAN` of the way
    answers   the classifier is more certain and more various with another one; or certain beyond all sense

Where it can't be decided, nothing is said:
- ranges that differ by brightness alone (0..1 and -0.5..0.5), for images that are themselves unusually dark or bright;
- the order of colours of gray images, and of images that are bluer than red: natural blue looks like exchanged red;
- the order of colours in arrays, unless the classifier too speaks for the other one;
- for models without batch normalization, ranges that the classifier answers about equally well.

What it does NOT do: measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.models.calibration import rivals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.host.models.calibration.evidence import Answers, Evidence, Fit, Lean
    from tflotilla.shared.contract.processing import Preprocessing

LEAST_MISFIT = 0.15
#: Beyond what the oddest images do to the right preprocessing (1.2: digits for a net of photos).
ABSURD_MISFIT = 2.0
MOST_LEAN = 0.6
LEAST_STRENGTH = 0.15
#: Red less blue, in pixels: photos have 10 to 40.
LEAST_WARMTH = 8.0
#: Mean pixels between these are those of usual photos.
USUAL_BRIGHTNESS = (60.0, 195.0)
ENOUGH_SAMPLES = 16
ABSURD_MARGIN = 20.0
_MORE_CONFIDENCE, _MORE_INFORMATION, _SURE = 0.06, 0.05, 2.0
_MUCH_INFORMATION, _MUCH_MORE, _LESS_CONFIDENCE = 0.5, 1.25, -0.05
#: In nats: always about the same answer.
_LEAST_INFORMATION = 0.1
_ABOUT_EQUAL = 0.9
_MORE_ACCURACY, _STANDARD_ERRORS = 0.01, 3.0
#: An exchange of black and white must fit so much better.
_INVERTED_RATIO = 3.0


class Kind(StrEnum):
    """What a warning is about."""

    RANGE = "range"
    ORDER = "order"
    SAMPLES = "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """One warning; `preprocess` is what to try behind `--preprocess`, where that is known."""

    kind: Kind
    message: str
    preprocess: str | None = None


def judge(evidence: Evidence) -> tuple[Suspicion, ...]:
    """Return what is suspicious about the preprocessing; () is the answer for the right one."""
    if not evidence.fits:
        return ()
    given = evidence.fits[0]
    by_labels = _by_accuracy(evidence)
    if by_labels is not None:
        return (by_labels,)
    if given.misfit is not None:
        return tuple(filter(None, (_by_memory(evidence),)))
    return tuple(filter(None, (_by_answers(evidence),)))


def suspects_order(evidence: Evidence) -> bool:
    """Whether the memory speaks for exchanged colours, and only a classifier can tell them from natural blue."""
    return _leans(evidence.lean) and not _warm(evidence)


def answers_oddly(answers: Answers) -> bool:
    """Whether a classifier's answers are reason to look at those under other preprocessings, on models of no memory."""
    return answers.margin >= ABSURD_MARGIN or answers.information < _LEAST_INFORMATION


def _by_accuracy(evidence: Evidence) -> Suspicion | None:
    """Labels decide where there are some: another preprocessing that answers better beyond chance."""
    given, *others = evidence.fits
    known = [fit for fit in others if fit.accuracy is not None]
    if given.accuracy is None or not known:
        return None
    best = max(known, key=lambda fit: fit.accuracy or 0.0)
    assert best.accuracy is not None  # noqa: S101 - only such are known
    labelled = max(evidence.labelled, 1)
    error = math.sqrt(max(given.accuracy * (1 - given.accuracy), 0.25 / labelled) / labelled)
    if best.accuracy - given.accuracy < max(_MORE_ACCURACY, _STANDARD_ERRORS * error):
        return None
    why = (
        f"of the labelled samples {given.accuracy:.0%} are right with {_said(given)}, "
        f"{best.accuracy:.0%} with {_said(best)}"
    )
    return _warning(evidence, best, why)


def _by_memory(evidence: Evidence) -> Suspicion | None:
    given = evidence.fits[0]
    assert given.misfit is not None  # noqa: S101 - the caller looked
    same_order = [fit for fit in evidence.fits[1:] if rivals.same_order(fit.preprocessing, given.preprocessing)]
    best = min((fit for fit in same_order if fit.misfit is not None), key=_misfit, default=None)
    if best is not None and _fits_better(evidence, given, best):
        better = best
        turned = [fit for fit in evidence.fits if rivals.same_range(fit.preprocessing, best.preprocessing)]
        if _leans(evidence.lean_of_best) and _warm(evidence):
            better = next((fit for fit in turned if fit is not best), best)
        return _warning(evidence, better, _remembers(evidence, given, better))
    inverted = _inverted(evidence)
    if inverted is not None:
        return _warning(evidence, inverted, _remembers(evidence, given, inverted))
    exchanged = _exchanged(evidence)
    if exchanged is not None:
        return _warning(evidence, exchanged, f"layer {evidence.layer!r} remembers red and blue the other way round")
    if given.misfit >= ABSURD_MISFIT:
        return Suspicion(
            kind=Kind.RANGE,
            message=(
                f"the calibration data can't be what the model was trained on: layer {evidence.layer!r} remembers "
                f"other numbers (misfit {given.misfit:.2g}; usual is below {LEAST_MISFIT}), and no known preprocessing "
                "explains them; are they scaled as in training?"
            ),
        )
    return None


def _fits_better(evidence: Evidence, given: Fit, best: Fit) -> bool:
    mine, other = _misfit(given), _misfit(best)
    if mine < LEAST_MISFIT or mine < _ratio(evidence.samples) * other:
        return False
    low, high = USUAL_BRIGHTNESS
    unusual = evidence.brightness is not None and not low <= evidence.brightness <= high
    shifted = np.allclose(np.abs(given.preprocessing.std), np.abs(best.preprocessing.std), rtol=0.05)
    return not (shifted and unusual and mine < ABSURD_MISFIT)


def _ratio(samples: int) -> float:
    """Return how many times better another one must fit: few samples have odd means."""
    return 1.8 if samples >= ENOUGH_SAMPLES else 3.0 if samples >= 4 else 6.0  # noqa: PLR2004 - measured


def _inverted(evidence: Evidence) -> Fit | None:
    given = evidence.fits[0]
    if given.preprocessing.colour != "gray" or _misfit(given) < LEAST_MISFIT:
        return None
    turned = [fit for fit in evidence.fits[1:] if not rivals.same_order(fit.preprocessing, given.preprocessing)]
    best = min((fit for fit in turned if fit.misfit is not None), key=_misfit, default=None)
    return best if best is not None and _misfit(given) >= _INVERTED_RATIO * _misfit(best) else None


def _exchanged(evidence: Evidence) -> Fit | None:
    if evidence.samples < ENOUGH_SAMPLES or not _leans(evidence.lean):
        return None
    given = evidence.fits[0]
    found = next((fit for fit in evidence.fits[1:] if _is_exchange(fit, given)), None)
    if found is None:
        return None
    if _warm(evidence):
        return found
    # Images that are blue by nature look the same to the memory; to the classifier they don't.
    mine, other = given.answers, found.answers
    if mine is None or other is None:
        return None
    surer = other.confidence > mine.confidence and other.information > mine.information
    return found if surer and not evidence.order_known else None


def _is_exchange(fit: Fit, given: Fit) -> bool:
    one, other = fit.preprocessing, given.preprocessing
    return rivals.same_range(one, other) and not rivals.same_order(one, other)


def _leans(found: Lean | None) -> bool:
    return found is not None and found.lean > MOST_LEAN and found.strength >= LEAST_STRENGTH


def _warm(evidence: Evidence) -> bool:
    """Whether the images are known to be redder than blue, as photos are: then a lean is no natural blue."""
    return evidence.order_known and evidence.warmth is not None and evidence.warmth >= LEAST_WARMTH


def _by_answers(evidence: Evidence) -> Suspicion | None:
    """Judge a model that remembers nothing by how a classifier answers."""
    given = evidence.fits[0]
    if given.answers is None:
        return None
    sane = [fit for fit in evidence.fits[1:] if fit.answers is not None and fit.answers.margin < ABSURD_MARGIN]
    if given.answers.margin >= ABSURD_MARGIN:
        best = _most_telling(evidence, sane)
        if best is None:
            return None
        why = (
            f"with {_said(given)} the model is certain beyond all sense (its best class is "
            f"e^{given.answers.margin:.0f} times as likely as the next), with {_said(best)} "
            f"e^{_answers(best).margin:.1f}"
        )
        return _warning(evidence, best, why)
    if evidence.samples < ENOUGH_SAMPLES:
        return None
    best = _most_telling(evidence, [fit for fit in sane if _answers_better(given.answers, _answers(fit))])
    if best is None:
        return None
    why = (
        f"with {_said(given)} the model's answers tell {given.answers.information:.2f} nats (mean confidence "
        f"{given.answers.confidence:.0%}), with {_said(best)} {_information(best):.2f} "
        f"({_answers(best).confidence:.0%})"
    )
    return _warning(evidence, best, why)


def _answers_better(mine: Answers, other: Answers) -> bool:
    more = other.information - mine.information
    pairs = np.asarray(other.confidences) - np.asarray(mine.confidences)
    surer = float(pairs.mean())
    error = float(pairs.std()) / math.sqrt(len(pairs))
    both = surer >= _MORE_CONFIDENCE and more >= _MORE_INFORMATION and surer >= _SURE * error
    much = more >= _MUCH_INFORMATION and other.information >= _MUCH_MORE * mine.information
    return both or (much and surer > _LESS_CONFIDENCE)


def _most_telling(evidence: Evidence, fits: Sequence[Fit]) -> Fit | None:
    """Return the fit whose answers tell most, the simplest of about equal ones; another order only if much better."""
    given = evidence.fits[0].preprocessing
    turned = [fit for fit in fits if not rivals.same_order(fit.preprocessing, given)]
    mine = _simplest([fit for fit in fits if fit not in turned])
    other = _simplest(turned)
    if mine is None or other is None:
        return mine or other
    return other if _answers_better(_answers(mine), _answers(other)) else mine


def _simplest(fits: Sequence[Fit]) -> Fit | None:
    most = max(map(_information, fits), default=0.0)
    # Rivals come with the plainest range first.
    return next((fit for fit in fits if _information(fit) >= _ABOUT_EQUAL * most), None)


def _remembers(evidence: Evidence, given: Fit, best: Fit) -> str:
    return (
        f"layer {evidence.layer!r} remembers other numbers than {_said(given)} makes (misfit {_misfit(given):.2g}; "
        f"with {_said(best)} {_misfit(best):.2g})"
    )


def _warning(evidence: Evidence, better: Fit, why: str) -> Suspicion:
    given, other = evidence.fits[0].preprocessing, better.preprocessing
    text = rivals.spell(other)
    kind = Kind.ORDER if rivals.same_range(given, other) else Kind.RANGE
    what = "the calibration images can't be what the model was trained on"
    if kind is Kind.ORDER:
        exchanged = "black and white" if given.colour == "gray" else "red and blue"
        what = f"{exchanged} of the calibration images look exchanged"
    advice = f"try --preprocess {text}"
    if not evidence.pixels:
        reverse = "reverse the last axis of the arrays, or " if kind is Kind.ORDER and given.colour != "gray" else ""
        advice = f"{reverse}make the arrays as --preprocess {text} makes them of pixels"
    return Suspicion(kind=kind, message=f"{what}: {why}; {advice}", preprocess=text)


def about_samples(distinct: int, total: int, constant: int) -> tuple[Suspicion, ...]:
    """Warn about samples that can't teach ranges: `distinct` ones differ of `total`, `constant` are one number each."""
    found = []
    if total > 1 and distinct == 1:
        found.append(f"all {total} calibration samples are equal: ranges are those of a single one")
    elif total > 1 and distinct * 2 <= total:
        found.append(f"only {distinct} of {total} calibration samples differ; the rest repeat them")
    if constant:
        which = "all" if constant == total else f"{constant} of {total}"
        found.append(f"{which} calibration samples are one and the same number throughout: nothing to see in them")
    return tuple(Suspicion(kind=Kind.SAMPLES, message=text) for text in found)


def few(distinct: int) -> tuple[Suspicion, ...]:
    """Warn about fewer different samples than quantization is usually calibrated with."""
    if distinct >= ENOUGH_SAMPLES:
        return ()
    return (
        Suspicion(
            kind=Kind.SAMPLES,
            message=f"few different calibration samples ({distinct}); ranges settle with about 100",
        ),
    )


def messages(found: Iterable[Suspicion]) -> list[str]:
    """Return the sentences of warnings."""
    return [suspicion.message for suspicion in found]


def _said(fit: Fit) -> str:
    preprocessing: Preprocessing = fit.preprocessing
    return rivals.spell(preprocessing)


def _misfit(fit: Fit) -> float:
    return math.inf if fit.misfit is None else fit.misfit


def _answers(fit: Fit) -> Answers:
    assert fit.answers is not None  # noqa: S101 - the callers choose such
    return fit.answers


def _information(fit: Fit) -> float:
    return _answers(fit).information
