"""Gathers the evidence about a preprocessing, in TensorFlow: what a model sees of the samples, what it says of them.

Runs in the conversion's child process. Quick (for `convert`): the graph up to the first layer that remembers, for the
given preprocessing and the exchanged colours; all rivals only when the given one does not fit. Thorough (for
`calibrate`): all rivals, the classifier's answers too.

What it does NOT do: decide (`suspicion`), or fail: what can't be probed says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.calibration import evidence, graph_part, memories, rivals, suspicion
from tflotilla.host.models.calibration.evidence import Evidence, Fit
from tflotilla.host.models.calibration.memories import SupportsGraph
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.processing import Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tflotilla.host.models.calibration.memories import Memory, Moments
    from tflotilla.host.models.calibration.suspicion import Suspicion
    from tflotilla.host.models.sources import SourceModel

    Inputs = tuple[NDArray[Any], ...]

SAMPLES = 32
_QUICK_ANSWERS = 8
_IMAGE_DIMENSIONS = 4
_CHANNELS = (1, 3)
_LEAST_SIDE = 16
_COMPARED_VALUES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Calibration samples, and what is known about where they come from."""

    #: As the model takes them.
    samples: Sequence[Inputs]
    preprocessing: Preprocessing | None
    #: Whether they were made of pixels by `preprocessing` (else they came as floats).
    pixels: bool
    #: Whether the pixels are of image files, whose red is red.
    files: bool


def look(model: SourceModel, data: Data) -> tuple[Suspicion, ...]:
    """Return what is suspicious, at little cost: what `convert` says."""
    about = suspicion.about_samples(*alike(data.samples))
    return (*about, *suspicion.judge(gather(model, data, thorough=False)))


def look_closely(model: SourceModel, data: Data) -> tuple[Evidence, tuple[Suspicion, ...]]:
    """Return all evidence, and what is suspicious about the samples themselves; the evidence is judged with labels."""
    distinct, total, constant = alike(data.samples)
    found = (*suspicion.about_samples(distinct, total, constant), *suspicion.few(distinct))
    return gather(model, data, thorough=True), found


def gather(model: SourceModel, data: Data, *, thorough: bool) -> Evidence:
    """Return what speaks for and against the preprocessing of the samples."""
    chosen = (
        [data.samples[i * len(data.samples) // SAMPLES] for i in range(SAMPLES)]
        if (len(data.samples) > SAMPLES)
        else list(data.samples)
    )
    given = _given(chosen, data.preprocessing)
    floats = len(model.inputs) == 1 and all(sample[0].dtype == np.float32 for sample in chosen)
    if not chosen or not floats:
        return Evidence(samples=len(chosen))
    batch = np.concatenate([sample[0] for sample in chosen])
    prober = _Prober(model, batch, given)
    if given is None:
        # No image: whether it fits can be seen, what would fit better can't.
        return Evidence(samples=len(chosen), layer=prober.layer, fits=prober.alone(), pixels=data.pixels)
    found = prober.fits(thorough=thorough)
    brightness, warmth = _pixels(batch, given)
    gathered = Evidence(
        samples=len(chosen),
        fits=found,
        layer=prober.layer,
        lean=prober.lean(found[0].preprocessing),
        lean_of_best=prober.lean(
            min(found, key=lambda fit: np.inf if fit.misfit is None else fit.misfit).preprocessing
        ),
        brightness=brightness,
        warmth=warmth,
        order_known=data.files,
        pixels=data.pixels,
    )
    if thorough or prober.layer is None or suspicion.suspects_order(gathered):
        gathered = dataclasses.replace(gathered, fits=_answered(model, batch, gathered, thorough=thorough))
    return gathered


class _Prober:
    """Runs one model's graph on what rivals would have made of a batch of samples."""

    def __init__(self, model: SourceModel, batch: NDArray[np.float32], given: Preprocessing | None) -> None:
        self._batch, self._given = batch, given
        self._graph: Any = None
        self._source = ""
        self._memories: tuple[Memory, ...] = ()
        self._seen: list[tuple[Preprocessing, Moments]] = []
        if isinstance(model, SupportsGraph):
            self._graph, sources, _ = model.graph()
            self._source = sources[0]
            self._memories = memories.nearest(self._graph, self._source)[:1]

    @property
    def layer(self) -> str | None:
        """The layer that remembers."""
        return self._memories[0].layer if self._memories else None

    def alone(self) -> tuple[Fit, ...]:
        """Return the misfit of the samples as they are."""
        if not self._memories:
            return ()
        seen = self._run([self._batch])
        return () if seen is None else (Fit(preprocessing=rivals.AS_IS, misfit=self._misfit(seen[0])),)

    def fits(self, *, thorough: bool) -> tuple[Fit, ...]:
        """Return the given preprocessing's fit, then the rivals'."""
        assert self._given is not None  # noqa: S101 - the caller looked
        every = rivals.rivals(self._given)
        if not self._memories:
            return tuple(Fit(preprocessing=each) for each in every)
        near = [each for each in every if rivals.same_range(each, self._given)]
        if not self._see(near):
            self._memories = ()
            return tuple(Fit(preprocessing=each) for each in every)
        doubtful = self._misfit(self._of(self._given)) >= suspicion.LEAST_MISFIT
        if thorough or doubtful:
            self._see([each for each in every if each not in near])
        known = {id(each): moments for each, moments in self._seen}
        return tuple(
            Fit(preprocessing=each, misfit=self._misfit(known[id(each)])) for each in every if id(each) in known
        )

    def lean(self, preprocessing: Preprocessing) -> evidence.Lean | None:
        """Return which order of colours the memory speaks for, with that range; None where it can't be said."""
        if not self._memories or preprocessing.colour == "gray":
            return None
        mine, other = self._of(preprocessing), self._of(rivals.swapped(preprocessing))
        if mine is None or other is None:
            return None
        _, remembered = evidence.kindest(self._memories[0].moments, mine)
        found = evidence.lean(remembered, mine, other)
        same = self._given is not None and rivals.same_order(preprocessing, self._given)
        # Always from the given order to the other one.
        return found if same else dataclasses.replace(found, lean=1.0 - found.lean)

    def _of(self, preprocessing: Preprocessing) -> Any:  # noqa: ANN401 - Moments, or None when it was not run
        return next((moments for each, moments in self._seen if rivals.same(each, preprocessing)), None)

    def _see(self, wanted: Sequence[Preprocessing]) -> bool:
        assert self._given is not None  # noqa: S101 - the caller looked
        given = self._given
        found = self._run([rivals.transfer(self._batch, given, each) for each in wanted])
        if found is not None:
            self._seen += zip(wanted, found, strict=True)
        return found is not None

    def _run(self, batches: Sequence[NDArray[np.float32]]) -> list[Moments] | None:
        import tensorflow as tf

        try:
            answers = memories.seen(self._graph, self._source, self._memories, batches)
        except (ValueError, TypeError, tf.errors.OpError):
            return None
        return [moments[0] for moments in answers]

    def _misfit(self, seen: Moments) -> float:
        return evidence.kindest(self._memories[0].moments, seen)[0]


def _given(samples: Sequence[Inputs], known: Preprocessing | None) -> Preprocessing | None:
    """Return the preprocessing that made the samples: the one said, or the one that their numbers look like."""
    if not samples or len(samples[0]) != 1:
        return None
    tensor = samples[0][0]
    if tensor.ndim != _IMAGE_DIMENSIONS or tensor.shape[-1] not in _CHANNELS:
        return None
    if known is not None:
        return known
    if min(tensor.shape[1:3]) < _LEAST_SIDE:
        return None  # rather a spectrogram, or numbers of a sensor
    least, greatest = (float(f([f(sample[0]) for sample in samples])) for f in (np.min, np.max))
    return rivals.guess(least, greatest, channels=tensor.shape[-1])


def _pixels(batch: NDArray[np.float32], given: Preprocessing) -> tuple[float, float | None]:
    """Return the mean of the pixels and of red less blue, 0..255, as the given order of colours has them."""
    means = batch.reshape(-1, batch.shape[-1]).mean(axis=0, dtype=np.float64) * np.asarray(given.std)
    means = means + np.asarray(given.mean)
    if len(means) == 1:
        return float(means.mean()), None
    red, blue = (means[-1], means[0]) if given.colour == "bgr" else (means[0], means[-1])
    return float(means.mean()), float(red - blue)


def alike(samples: Sequence[Inputs]) -> tuple[int, int, int]:
    """Return how many samples differ, how many there are, and how many are one number throughout."""
    # A few thousand values of each tell samples apart as well as all of them.
    different = {
        tuple(tensor.reshape(-1)[:: -(-tensor.size // _COMPARED_VALUES) or 1].tobytes() for tensor in sample)
        for sample in samples
    }
    constant = sum(
        all(tensor.size > 1 and bool((tensor == tensor.flat[0]).all()) for tensor in sample) for sample in samples
    )
    return len(different), len(samples), constant


def _answered(model: SourceModel, batch: NDArray[np.float32], found: Evidence, *, thorough: bool) -> tuple[Fit, ...]:
    """Let the classifier answer: with every rival, or with as few as a quick look needs."""
    given = found.fits[0].preprocessing
    if not thorough and found.layer is None:
        few = _ask(model, [batch[:: -(-len(batch) // _QUICK_ANSWERS)]])
        if few is None or not suspicion.answers_oddly(few[0]):
            return found.fits
    same_range, same_order = rivals.same_range, rivals.same_order
    asked = [
        fit
        for fit in found.fits
        if thorough
        or (found.layer is not None and same_range(fit.preprocessing, given))
        or (found.layer is None and same_order(fit.preprocessing, given))
    ]
    answers = _ask(model, [rivals.transfer(batch, given, fit.preprocessing) for fit in asked])
    if answers is None:
        return found.fits
    known = {id(fit): answer for fit, answer in zip(asked, answers, strict=True)}
    return tuple(dataclasses.replace(fit, answers=known.get(id(fit))) for fit in found.fits)


def _ask(model: SourceModel, batches: Sequence[NDArray[np.float32]]) -> list[evidence.Answers] | None:
    """Return a classifier's answers to each batch; None when it is none, or can't be run."""
    import tensorflow as tf

    try:
        if isinstance(model, SupportsGraph):
            graph, (source,), outputs = model.graph()
            if len(outputs) != 1:
                return None
            runs = graph_part.run(graph, source, outputs, batches)
            rows = [[row for run in batch for row in np.asarray(run[0])] for batch in runs]
        else:
            rows = [[model.run((batch[i : i + 1],))[0][0] for i in range(len(batch))] for batch in batches]
    except (ModelError, ValueError, TypeError, IndexError, tf.errors.OpError):
        return None
    if any(len(found) != len(batch) for found, batch in zip(rows, batches, strict=True)):
        return None
    answers = [evidence.answers(found) for found in rows]
    return None if any(answer is None for answer in answers) else [answer for answer in answers if answer is not None]
