"""Samples to outputs: some timed one by one, as a board runs them, the others as fast as this machine can.

Latency comes from single runs alone, as many as a p99 needs. The other samples only have to be answered: in batches by
every core, where a batch gives the same bits as one at a time; that is tried on samples that were answered both ways,
and where it isn't so they are run singly by every core. Models that remember are run in order, one after the other.

What it does NOT do: judge. Whoever judges gets chunks of outputs, in any order, each sample once.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tflotilla.host.models import child
from tflotilla.host.models.evaluation import batching
from tflotilla.host.models.evaluation.feeding import Feeder, Tensors
from tflotilla.host.models.inspect import ModelInspection
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import images
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.runtime import LoadOptions
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.host.models.evaluation.feeding import Samples
    from tflotilla.shared.inference.postprocessing import Answerer
    from tflotilla.shared.inference.runtime import LoadedModel, Runtime

    #: One entry per output: (n, *shape of the output), or a list of n where the shapes differ.
    Output = NDArray[Any] | Sequence[NDArray[Any]]
    Outputs = tuple[Output, ...]

_WARM_UP_RUNS = 3
_PROGRESS_EVERY_S = 0.5
#: Outputs of the timed runs are kept up to this size, else those samples are run again.
_KEPT_BYTES = 64 << 20
#: Samples per piece of work, where batches are smaller: fewer pieces cost less, more balance better.
_CHUNK, _IMAGE_CHUNK = 256, 16
_CHUNK_BYTES = 32 << 20
#: Threads that invoke for less than that wait for each other's Python more than they run beside each other.
_WORTH_SHARING_NS = 50_000


class Judge(Protocol):
    """Takes outputs, of one or of two models."""

    def look(self, rows: NDArray[np.int64], outputs: Sequence[Outputs]) -> Any:  # noqa: ANN401 - the judge's own
        """Reduce a chunk to what is kept of it; called from several threads."""

    def add(self, seen: Any) -> None:  # noqa: ANN401 - the judge's own
        """Keep what `look` returned; called from one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Competitor:
    """One model that is to answer: the one that is judged, or the one that it is compared with."""

    file: Path
    inspection: ModelInspection
    feeder: Feeder


@dataclass(slots=True, kw_only=True)
class Timed:
    """The single runs."""

    rows: NDArray[np.int64]
    stages: dict[messages.Stage, list[int]] = field(default_factory=dict)
    #: Per row; empty where they would fill the memory.
    outputs: list[Tensors] = field(default_factory=list)


def run(
    engine: Runtime,
    competitors: Sequence[Competitor],
    samples: Samples,
    judge: Judge,
    *,
    loaded: LoadedModel,
    answerer: Answerer,
    num_threads: int,
) -> dict[messages.Stage, list[int]]:
    """Let the first competitor answer every sample, beside it the others, and return its latencies in ns.

    Raises:
        ModelError: a kernel failed; a runtime refuses a competitor.
        DatasetError: a sample can't be read.

    """
    in_order = any(batching.remembers(each.inspection) for each in competitors)
    timed = _time_singles(loaded, competitors[0].feeder, answerer, samples.count, everything=in_order)
    if len(competitors) == 1 and timed.outputs:
        judge.add(judge.look(timed.rows, [_stacked(timed.outputs)]))
        rows = np.setdiff1d(np.arange(samples.count), timed.rows)
    else:
        rows = np.arange(samples.count)
    if len(rows):
        crew = _Crew(engine, competitors, samples, LoadOptions(num_threads=num_threads), timed, in_order=in_order)
        _let_work(crew, rows, judge, samples.count)
    return timed.stages


def answer(
    engine: Runtime, competitors: Sequence[Competitor], samples: Samples, judge: Judge, *, num_threads: int = 1
) -> None:
    """Let the competitors answer every sample, as fast as it goes: as `run`, but nothing is timed.

    Raises:
        ModelError, DatasetError: as `run`.

    """
    in_order = any(batching.remembers(each.inspection) for each in competitors)
    tried = Timed(rows=np.arange(min(samples.count, batching.MOST), dtype=np.int64))
    crew = _Crew(engine, competitors, samples, LoadOptions(num_threads=num_threads), tried, in_order=in_order)
    _let_work(crew, np.arange(samples.count), judge, samples.count)


def _let_work(crew: _Crew, rows: NDArray[np.int64], judge: Judge, total: int) -> None:
    progress = _Progress(total, done=total - len(rows))
    for seen, count in crew.work(rows, judge):
        judge.add(seen)
        progress.step(count)


def _time_singles(loaded: LoadedModel, feeder: Feeder, answerer: Answerer, count: int, *, everything: bool) -> Timed:
    wanted = count if everything else min(count, minimum_runs(99))
    timed = Timed(rows=np.array([i * count // wanted for i in range(wanted)], dtype=np.int64))
    pipeline = Pipeline(loaded, None, answerer)
    progress = _Progress(count)
    stages: list[tuple[int, int, int, int, int]] = []
    keep = True
    for number, row in enumerate(timed.rows.tolist()):
        tensors, decode_ns, started_ns = feeder.single(row)
        if number == 0:
            for _ in range(_WARM_UP_RUNS):
                pipeline.infer(tensors)
            tensors, decode_ns, started_ns = feeder.single(row)
        result = pipeline.infer(tensors, started_ns=started_ns)
        stages.append((decode_ns, result.preprocess_ns, result.invoke_ns, result.postprocess_ns, 0))
        if number == 0:
            outputs = loaded.get_outputs()
            keep = wanted * sum(output.nbytes for output in outputs) <= _KEPT_BYTES
        if keep:
            timed.outputs.append(loaded.get_outputs())
        progress.step(1)
    columns = np.array(stages, dtype=np.int64)
    columns[:, 4] = columns[:, :4].sum(axis=1)
    names: tuple[messages.Stage, ...] = ("decode", "preprocess", "invoke", "postprocess", "total")
    timed.stages = {name: columns[:, i].tolist() for i, name in enumerate(names)}
    return timed


class _Crew:
    """Every core with interpreters of its own."""

    def __init__(
        self,
        engine: Runtime,
        competitors: Sequence[Competitor],
        samples: Samples,
        options: LoadOptions,
        timed: Timed,
        *,
        in_order: bool,
    ) -> None:
        self._engine = engine
        self._competitors = competitors
        self._samples = samples
        self._options = options
        self._timed = timed
        self._in_order = in_order
        cores = len(os.sched_getaffinity(0))
        self._workers = 1 if in_order else max(1, cores // options.num_threads)
        # A batch pays where there is something left to run after it was tried.
        worth = samples.count > 2 * len(timed.rows) or (len(competitors) > 1 and samples.count > _CHUNK)
        self._plans = [
            self._plan(number, each) if worth and not in_order else (each.file, 1)
            for number, each in enumerate(competitors)
        ]
        invokes = timed.stages.get("invoke", [])
        if all(batch == 1 for _, batch in self._plans) and invokes and np.median(invokes) < _WORTH_SHARING_NS:
            self._workers = 1
        self._mine = threading.local()

    def work(self, rows: NDArray[np.int64], judge: Judge) -> Iterator[tuple[Any, int]]:
        """Yield what the judge saw in each chunk, and the chunk's size."""
        chunks = self._chunks(rows)
        if self._workers == 1 or len(chunks) == 1:
            for chunk in chunks:
                yield self._see(chunk, judge), len(chunk)
            return
        with ThreadPoolExecutor(min(self._workers, len(chunks))) as pool:
            running = {pool.submit(self._see, chunk, judge): len(chunk) for chunk in chunks}
            try:
                for future in as_completed(running):
                    yield future.result(), running[future]
            finally:
                pool.shutdown(cancel_futures=True)

    def _chunks(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        inputs = sum(
            int(np.prod([max(1, size) for size in spec.shape])) * 4
            for each in self._competitors
            for spec in each.inspection.inputs
        )
        most = _IMAGE_CHUNK if self._samples.files else _CHUNK
        most = max(1, min(most, _CHUNK_BYTES // max(1, inputs)))
        batch = max(batch for _, batch in self._plans)
        length = max(batch, most // batch * batch)
        return [rows[begin : begin + length] for begin in range(0, len(rows), length)]

    def _see(self, rows: NDArray[np.int64], judge: Judge) -> Any:  # noqa: ANN401 - the judge's own
        return judge.look(rows, self._answer(rows))

    def _answer(self, rows: NDArray[np.int64]) -> list[Outputs]:
        if not hasattr(self._mine, "runners"):
            self._mine.runners = [
                _Runner(self._engine.load(source, self._options), batch) for source, batch in self._plans
            ]
        return [
            runner.answer(tensors)
            for runner, tensors in zip(self._mine.runners, self._read(rows, self._competitors), strict=True)
        ]

    def _read(self, rows: NDArray[np.int64], competitors: Sequence[Competitor]) -> list[Tensors]:
        files = self._samples.files
        if not files:
            return [each.feeder.many(_sliced(rows)) for each in competitors]
        # Decoded once; the draft is the first one's, whose latency counts.
        draft = competitors[0].feeder.draft_size
        pictures = [images.open_image(files[row], draft_size=draft) for row in rows.tolist()]
        return [each.feeder.prepare(pictures) for each in competitors]

    def _plan(self, number: int, competitor: Competitor) -> tuple[Path | bytes, int]:
        """Return what to load and how many samples it takes at once, after trying."""
        single = (competitor.file, 1)
        batch = batching.size(competitor.inspection)
        if batch == 1 or batch > len(self._timed.rows):
            return single
        data = batching.rebatched(competitor.file.read_bytes(), batch)
        if data is None:
            return single
        rows = self._timed.rows[:batch]
        (tensors,) = self._read(rows, [competitor])
        try:
            together = _Runner(self._engine.load(data, self._options), batch).answer(tensors)
        except (ModelError, ValueError):
            return single
        if number == 0 and self._timed.outputs:
            alone = _stacked(self._timed.outputs[:batch])
        else:
            alone = _Runner(self._engine.load(competitor.file, self._options), 1).answer(tensors)
        return (data, batch) if _same_bits(together, alone) else single


class _Runner:
    """One interpreter and its batch."""

    def __init__(self, loaded: LoadedModel, batch: int) -> None:
        self._loaded = loaded
        self._batch = batch

    def answer(self, tensors: Tensors) -> Outputs:
        """Return the outputs of (n, *shape of the input) tensors."""
        if self._batch == 1:
            return self._one_by_one(tensors)
        count = len(tensors[0])
        parts = []
        for begin in range(0, count, self._batch):
            piece = tuple(tensor[begin : begin + self._batch] for tensor in tensors)
            missing = self._batch - len(piece[0])
            if missing:
                piece = tuple(np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) for part in piece)
            # (n, 1, …) to (n, …): the batch takes the place of the input's own first dimension.
            self._loaded.set_inputs(tuple(np.ascontiguousarray(part[:, 0]) for part in piece))
            self._loaded.invoke()
            parts.append(tuple(output[: self._batch - missing] for output in self._loaded.get_outputs()))
        return tuple(np.concatenate(output)[:, np.newaxis] for output in zip(*parts, strict=True))

    def _one_by_one(self, tensors: Tensors) -> Outputs:
        answers = []
        for sample in zip(*tensors, strict=True):
            self._loaded.set_inputs(sample)
            self._loaded.invoke()
            answers.append(self._loaded.get_outputs())
        return _stacked(answers)


def _sliced(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return a slice where rows follow each other: arrays are then not copied."""
    begin, count = int(rows[0]), len(rows)
    return slice(begin, begin + count) if int(rows[-1]) - begin == count - 1 else rows


def _stacked(answers: Sequence[Tensors]) -> Outputs:
    return tuple(_together(output) for output in zip(*answers, strict=True))


def _together(output: Sequence[NDArray[Any]]) -> Output:
    if len({one.shape for one in output}) > 1:
        return list(output)
    stacked: NDArray[Any] = np.stack(output)
    return stacked


def _same_bits(together: Outputs, alone: Outputs) -> bool:
    return all(
        np.shape(one) == np.shape(other) and np.asarray(one).tobytes() == np.asarray(other).tobytes()
        for one, other in zip(together, alone, strict=True)
    )


class _Progress:
    """Says how far it is, not too often."""

    def __init__(self, total: int, *, done: int = 0) -> None:
        self.done = done
        self._total = total
        self._said = time.monotonic()

    def step(self, count: int) -> None:
        """Count so many more."""
        self.done += count
        if time.monotonic() - self._said > _PROGRESS_EVERY_S:
            self._said = time.monotonic()
            child.report_progress(f"{self.done:,} of {self._total:,}")
