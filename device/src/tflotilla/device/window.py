"""One window of a worker's life: latencies by stage, labels and results, as the bodies of two kinds of message.

What is added is counted and written down at once, which is cheap for many in a row and dear for one beside an `invoke`,
on a processor whose caches the model has just filled. The text is what `codec.canonical_json` would write (a test holds
them against each other), without its price.
What it does NOT do: look at a clock, write, or know where inputs come from.
"""

from __future__ import annotations

import dataclasses
import random
from array import array
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.device.sampling import Reservoir
from tflotilla.shared import sketches, statistics
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import Metrics, Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from tflotilla.shared.contract.messages import Candidate, StageLatency

#: The stages, in the order `add` takes them.
STAGES = ("decode", "preprocess", "invoke", "postprocess", "total")
Stages = tuple[int, int, int, int, int]
#: A window that holds so many is full: the exact percentiles of more would cost more memory than they are worth.
FULL_AT = 50_000
#: So many results are handed over before the window ends: 40 KB of JSON, made in a third of a millisecond.
BATCH = 128
_NS = 1_000_000_000
_SCORE_BINS = 10


class Window:
    """Collects; `metrics` and `take_results` give the bodies. Start a new one for the next window.

    `sample` of the answers, drawn by `uniform`, come with the metrics.
    """

    def __init__(
        self,
        *,
        with_results: bool,
        low_confidence_below: float = 0.5,
        sample: int = 0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._with_results = with_results
        self._low_confidence_below = low_confidence_below
        self._taken = array("q")
        self._labels = statistics.LabelStatistics()
        self._results: list[str] = []
        self._sample: Reservoir[tuple[str, float, Stages, Sequence[Candidate]]] = Reservoir(sample, uniform)
        #: How many numbers `_taken` holds when the next answer for the sample is there.
        self._sample_at = self._sample.next_at * len(STAGES)
        self.errors = 0
        self.unreadable = 0

    @property
    def count(self) -> int:
        """How many inferences were added."""
        return len(self._taken) // len(STAGES)

    @property
    def full(self) -> bool:
        """Whether the window must be closed before its time."""
        return self.count >= FULL_AT

    @property
    def batch_ready(self) -> bool:
        """Whether it is time to hand results over."""
        return len(self._results) >= BATCH

    @property
    def results(self) -> int:
        """How many results `take_results` would give."""
        return len(self._results)

    def add(self, item: str, time_s: float, stages_ns: Stages, top: Sequence[Candidate]) -> None:
        """Add one inference: stages in the order of `STAGES`, `time_s` in Unix seconds at its end."""
        taken = self._taken
        taken.extend(stages_ns)
        if top:
            best = top[0]
            self._labels.add(best.label, best.score)
        if self._with_results:
            self._results.append(result_text(item, time_s, stages_ns, top))
        if len(taken) >= self._sample_at:
            self._sample.put((item, time_s, stages_ns, top))
            self._sample_at = self._sample.next_at * len(STAGES)

    def take_results(self) -> bytes:
        """Return the results since this was last asked as the body of a Predictions message."""
        body = '{"results":[' + ",".join(self._results) + "]}"
        self._results = []
        return body.encode(errors="replace")

    def metrics(
        self,
        *,
        window_ns: int,
        dropped: int,
        rss_bytes: int,
        temperature_c: float | None,
        throttled: bool | None = None,
    ) -> bytes:
        """Return the body of the window's Metrics message."""
        scores = np.frombuffer(self._labels.scores(), dtype=np.float64)
        body = Metrics(
            window_s=round(window_ns / _NS, 6),
            count=self.count,
            errors=self.errors,
            dropped=dropped,
            stages=_latencies(self._taken),
            labels=self._labels.take(),
            rss_bytes=rss_bytes,
            temperature_c=temperature_c,
            unreadable=self.unreadable,
            scores=_binned(scores),
            low_confidence=int(np.count_nonzero(scores < self._low_confidence_below)),
            throttled=throttled,
            sample=tuple(
                Prediction(item=item, time=time_s, stages_ns=dict(zip(STAGES, stages_ns, strict=True)), top=tuple(top))
                for item, time_s, stages_ns, top in sorted(self._sample.items, key=lambda one: one[1])
            ),
        )
        return codec.canonical_json(body)


def _latencies(taken: array[int]) -> dict[str, StageLatency]:
    """Return each stage's percentiles and sketch; nothing of nothing."""
    if not taken:
        return {}
    # Sorted here, ten times as fast as Python does: at full speed a window holds tens of thousands.
    rows = np.sort(np.frombuffer(taken, dtype=np.int64).reshape(-1, len(STAGES)), axis=0)
    found = {}
    for number, stage in enumerate(STAGES):
        column = np.ascontiguousarray(rows[:, number])
        latency = statistics.summarize(column.tolist())
        found[stage] = dataclasses.replace(
            latency, mean_ns=round(latency.mean_ns, 1), sketch=sketches.of_sorted(column)
        )
    return found


def _binned(scores: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """Count scores in tenths from 0 to 1, which belongs to the last; what a model says beyond is in none of them."""
    tenths = np.minimum(scores[(scores >= 0) & (scores <= 1)] * _SCORE_BINS, _SCORE_BINS - 1).astype(np.intp)
    return tuple(np.bincount(tenths, minlength=_SCORE_BINS).tolist())


def result_text(item: str, time_s: float, stages_ns: Stages, top: Sequence[Candidate]) -> str:
    """Return one Prediction as canonical JSON."""
    decode, preprocess, invoke, postprocess, total = stages_ns
    answers = ",".join([_answer(candidate) for candidate in top])
    return (
        f'{{"item":{encode_basestring(item)},"stages_ns":{{"decode":{decode},"invoke":{invoke},'
        f'"postprocess":{postprocess},"preprocess":{preprocess},"total":{total}}},'
        f'"time":{time_s!r},"top":[{answers}]}}'
    )


def _answer(candidate: Candidate) -> str:
    # Quantized scores are few, and their candidates kept: most texts are found here, by the object itself, because
    # hashing what is in it costs more than all the rest.
    known = _ANSWERS.get(id(candidate))
    if known is not None and known[0] is candidate:
        return known[1]
    if candidate.box is not None:
        return codec.canonical_json(candidate).decode()
    text = (
        f'{{"box":null,"index":{candidate.index},"label":{encode_basestring(candidate.label)},'
        f'"score":{candidate.score!r}}}'
    )
    if len(_ANSWERS) >= _ANSWERS_LIMIT:
        _ANSWERS.clear()
    _ANSWERS[id(candidate)] = candidate, text
    return text


#: The candidate beside its text: while it is here, no other can get its id.
_ANSWERS: dict[int, tuple[Candidate, str]] = {}
_ANSWERS_LIMIT = 2048
