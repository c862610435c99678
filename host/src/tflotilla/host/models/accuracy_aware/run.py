"""The search as it runs in the child process: TensorFlow loaded once, variants made and judged, the next one chosen.

    float32 → judged → the search's candidates, each made and judged → (int8 lost too much) layers measured → …
    → all variants side by side on the clock → the best ones that meet the bound, proven on samples held back

What a crash must not lose lies in the folder: the steps taken, and what was being tried; the parent starts again behind
it. What it does NOT do: decide what to try or take (`search`), or hand anything over (`quantization`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import datasets, flatbuffer, latency, metrics, sources
from tflotilla.host.models.accuracy_aware import intervals, search, splits
from tflotilla.host.models.accuracy_aware.edges import Edges
from tflotilla.host.models.accuracy_aware.judging import Judge, Judgement
from tflotilla.host.models.accuracy_aware.ranking import Ranking
from tflotilla.host.models.accuracy_aware.search import Candidate, Layer, Observation, Problem
from tflotilla.host.models.accuracy_aware.steps import Findings, Job, Proof, Step
from tflotilla.host.models.accuracy_aware.variants import Variants
from tflotilla.host.models.child import report_progress
from tflotilla.host.models.evaluation import plan
from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BoardError, ConversionError, DatasetError, ModelError
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.sources import SourceModel
    from tflotilla.shared.contract.processing import Preprocessing

    Inputs = tuple[NDArray[Any], ...]

#: In the folder: what was measured; what is being tried, left behind by a crash; what crashed.
STEPS, CURRENT, CRASHED = "steps.json", "current", "crashed.json"
FLOAT = "float32.tflite"
_IMAGE_DIMENSIONS = 4
#: A variant may be tried for so long; int16x8 has slow kernels nearly everywhere.
_LONGEST_TRIAL_S = 180.0
_PACE_SAMPLES = 11
_CLOCK_RUNS, _CLOCK_SECONDS = 100, 1.5
#: Files that take turns on the clock are all in memory.
_CLOCKED_BYTES = 1 << 30
_PROOFS = 3
_PROGRESS_EVERY_S = 2.0


def run(*, job: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Search; leave the variants' files in `folder`. Returns `Findings`.

    Raises:
        ModelError, UsageError, DatasetError, BoardError: the source, the data or the runtime can't be used at all.
        ConversionError: there is no float file to compare with.

    """
    asked = codec.decode(Job, job, "job")
    report_progress("loading TensorFlow")
    model = sources.load(Path(asked.source), asked.format, asked.options)
    chosen = _preprocessing(asked, model)
    inputs = datasets.Calibration.open(Path(asked.calibration)).load(model.inputs, chosen, limit=asked.samples)
    result = _Search(asked, model, inputs, chosen, Path(folder)).run()
    encoded: dict[str, Any] = codec.encode(result)
    return encoded


def _preprocessing(job: Job, model: SourceModel) -> Preprocessing | None:
    if job.preset is None:
        return job.preprocessing
    shape = model.inputs[0].shape
    return preprocessing.parse(job.preset, channels=shape[-1] if len(shape) == _IMAGE_DIMENSIONS else None)


class _Search:
    """One search: what it works with, and what it found so far."""

    def __init__(
        self, job: Job, model: SourceModel, inputs: Sequence[Inputs], chosen: Preprocessing | None, folder: Path
    ) -> None:
        self._job = job
        self._inputs = inputs
        self._folder = folder
        self._variants = Variants(model, inputs, job.target, edges=job.edges)
        self._notes = list(model.notes)
        self._chosen = chosen
        self._judge = Judge(
            data=Path(job.data),
            runtime=job.runtime,
            num_threads=job.num_threads,
            preprocess=chosen,
            labels=None if job.labels is None else Path(job.labels),
            label_offset=job.label_offset,
            limit=job.limit,
            metric=job.metric,
        )
        self._proving: Judge | None = None
        self._steps: list[Step] = []
        self._layers: tuple[Layer, ...] = ()
        self._float_edges = False
        self._ranked = False
        self._crashed: dict[str, str] = {}

    def run(self) -> Findings:
        self._resume()
        in_float = self._start()
        while True:
            if not self._ranked and search.needs_layers(self._problem, self._path):
                self._rank()
                self._measure_edges(in_float)
                self._ranked = True
            if (candidate := search.next_candidate(self._problem, self._path)) is None:
                break
            self._steps.append(self._try(candidate, in_float))
            self._save()
        float_clock = self._clock()
        proofs, interval = self._prove(in_float)
        self._mark()
        return Findings(
            metric=in_float.metric,
            samples=in_float.samples,
            float_value=in_float.value,
            float_size_bytes=(self._folder / FLOAT).stat().st_size,
            float_p50_ns=None if float_clock is None else float_clock.invoke.p50_ns,
            float_runs=None if float_clock is None else float_clock.invoke.count,
            runtime=in_float.runtime,
            steps=tuple(self._steps),
            layers=self._layers,
            interval=interval,
            proofs=proofs,
            notes=tuple(self._notes),
            preprocessing=self._chosen,
        )

    @property
    def _problem(self) -> Problem:
        job = self._job
        return Problem(
            max_drop=job.max_drop,
            layers=self._layers,
            schemes=job.schemes,
            max_steps=job.max_steps,
            float_edges=self._float_edges,
        )

    @property
    def _path(self) -> search.Path:
        places = {layer.name: place for place, layer in enumerate(self._layers)}
        return tuple(
            (
                Candidate(
                    scheme=step.scheme,
                    kept=tuple(sorted(places[name] for name in step.kept)),
                    float_edges=step.float_edges,
                ),
                Observation(
                    drop=math.inf if step.drop is None else step.drop,
                    size_bytes=step.size_bytes or 0,
                    latency_ns=step.p50_ns or 0,
                    refused=step.refused,
                ),
            )
            for step in self._steps
        )

    def _start(self) -> Judgement:
        """Make and judge the float file, and split the data where there are enough. Returns what is to be kept."""
        report_progress("converting to float32")
        path = self._folder / FLOAT
        path.write_bytes(self._variants.whole(QuantizationScheme.FLOAT32))
        metric = plan.likeness(inspect_model(path)) if self._job.by_likeness else self._job.metric
        self._judge = dataclasses.replace(self._judge, reference=path, metric=metric)
        report_progress(f"judging float32 on {self._job.data}")
        try:
            judgement = self._judge.judge(path)
        except (ModelError, DatasetError) as error:
            # The user knows the source; the float file is ours, and gone when this is read.
            raise type(error)(str(error).replace(str(path), self._job.source)) from error
        self._judge = dataclasses.replace(self._judge, metric=judgement.metric)
        if judgement.hint is not None:
            self._notes.append(judgement.hint)
        if not self._may_split(judgement):
            return judgement
        data = datasets.open_labelled(
            self._judge.data,
            names=() if self._judge.labels is None else datasets.read_labels(self._judge.labels),
            classes=self._classes(path),
            offset=self._judge.label_offset,
        ).take(self._job.limit)
        sides = [
            splits.write(data, places, self._folder, name)
            for name, places in zip(splits.HALVES, splits.halves(data.labels), strict=True)
        ]
        search_on, prove_on = (
            dataclasses.replace(self._judge, data=side, label_offset=0, labels=None, limit=None) for side in sides
        )
        self._judge, self._proving = search_on, prove_on
        return self._judge.judge(path)

    def _may_split(self, judgement: Judgement) -> bool:
        if judgement.metric is not Metric.ACCURACY or not self._job.hold_out:
            return False
        return intervals.is_enough_to_split(self._job.max_drop, judgement.samples)

    @staticmethod
    def _classes(path: Path) -> int:
        model = flatbuffer.read(path.read_bytes())
        graph = model.subgraphs[0]
        return math.prod(flatbuffer.shape(graph.tensors[graph.outputs[0]]))

    def _try(self, candidate: Candidate, in_float: Judgement) -> Step:
        kept = tuple(self._layers[place].name for place in candidate.kept)
        step = Step(scheme=candidate.scheme, kept=kept, float_edges=candidate.float_edges)
        tried = key(step)
        if tried in self._crashed:
            return dataclasses.replace(step, refused=self._crashed[tried])
        (self._folder / CURRENT).write_text(tried)
        words = describe(step)
        report_progress(f"step {len(self._steps) + 1}: {words}")
        try:
            if kept:
                data = self._variants.mixed(kept, float_edges=step.float_edges)
            else:
                data = self._variants.whole(step.scheme, float_edges=step.float_edges)
            path = self._folder / f"step-{len(self._steps) + 1}.tflite"
            path.write_bytes(data)
            self._refuse_slow(path, candidate, in_float.samples)
            judgement = self._judge.judge(path)
        except (ConversionError, ModelError) as error:
            return dataclasses.replace(step, refused=" ".join(str(error).split()))
        drop = metrics.drop(judgement.metric, in_float.value, judgement.value)
        meets = drop <= self._job.max_drop
        report_progress(
            f"step {len(self._steps) + 1}: {words}: {judgement.metric.value} {judgement.value:.4f}, "
            f"drop {drop:.2g}, {len(data) / 1024:,.0f} KiB"
        )
        return dataclasses.replace(
            step, value=judgement.value, drop=drop, size_bytes=len(data), meets=meets, file=path.name
        )

    def _refuse_slow(self, path: Path, candidate: Candidate, samples: int) -> None:
        """Raise ModelError where int16x8's kernels would take too long for all samples."""
        if candidate.scheme is not search.WIDER:
            return
        found = latency.compare(
            [path], self._job.runtime, num_threads=self._job.num_threads, runs=_PACE_SAMPLES, seconds=_CLOCK_SECONDS
        )
        seconds = found[0].invoke.p50_ns / 1e9
        if seconds * samples > _LONGEST_TRIAL_S:
            raise ModelError(
                f"takes {seconds * 1e3:.0f} ms for each of {samples:,} samples here; --limit makes it possible"
            )

    def _rank(self) -> None:
        ranking = Ranking(self._folder / FLOAT, self._inputs, self._job.runtime, self._folder)

        said = -math.inf

        def say(name: str, number: int, total: int) -> None:
            nonlocal said
            (self._folder / CURRENT).write_text(name)
            if time.monotonic() - said > _PROGRESS_EVERY_S:
                said = time.monotonic()
                report_progress(f"measuring layer {number} of {total}")

        found = ranking.measure(self._variants, skipped=self._crashed, say=say)
        int8 = next(step for step in self._steps if step.scheme is QuantizationScheme.INT8)
        self._layers = search.ranked(found, self._job.prefer, size_bytes=int8.size_bytes or 0)

    def _measure_edges(self, in_float: Judgement) -> None:
        """Find out whether integer inputs and outputs, all else in float, lose too much already."""
        if self._job.edges is Edges.FLOAT:
            return
        (self._folder / CURRENT).write_text("edges")
        path = self._folder / "edges.tflite"
        path.write_bytes(self._variants.edges_alone())
        judgement = self._judge.judge(path)
        drop = metrics.drop(judgement.metric, in_float.value, judgement.value)
        self._float_edges = drop > self._job.max_drop
        if self._float_edges:
            self._notes.append(
                f"{self._job.edges.value} inputs and outputs alone lose {drop:.2g}: layers were kept between float ones"
            )

    def _clock(self) -> latency.Latency | None:
        """Take the time of the float file and of the variants in turns; return the float file's."""
        measured = [step for step in self._steps if step.file is not None]
        measured.sort(key=lambda step: (not step.meets, step.kept != (), step.size_bytes))
        total, chosen = (self._folder / FLOAT).stat().st_size, []
        for step in measured:
            total += step.size_bytes or 0
            if total <= _CLOCKED_BYTES or step.meets:
                chosen.append(step)
        report_progress(f"taking the time of {len(chosen) + 1} files in turns")
        files = [self._folder / FLOAT, *(self._folder / str(step.file) for step in chosen)]
        try:
            times = latency.compare(
                files,
                self._job.runtime,
                num_threads=self._job.num_threads,
                runs=_CLOCK_RUNS,
                seconds=_CLOCK_SECONDS,
            )
        except (ModelError, BoardError) as error:
            self._notes.append(f"no latency: {error}")
            return None
        clocked = {step.file: time for step, time in zip(chosen, times[1:], strict=True)}
        self._steps = [
            step
            if step.file not in clocked
            else dataclasses.replace(
                step, p50_ns=clocked[step.file].invoke.p50_ns, runs=clocked[step.file].invoke.count
            )
            for step in self._steps
        ]
        return times[0]

    def _prove(self, in_float: Judgement) -> tuple[tuple[Proof, ...], intervals.Interval | None]:
        """Take the best variant that meets the bound, on samples held back too where there are any."""
        order = search.choose(self._problem, self._path, self._job.prefer)
        numbers = {candidate: number for number, (candidate, _) in enumerate(self._path)}
        if self._proving is None or not order:
            if not order:
                return (), None
            number = numbers[order[0]]
            self._take(number)
            return (), self._interval(self._judge, number, in_float.metric)
        report_progress("proving on the samples held back")
        before = self._proving.judge(self._folder / FLOAT)
        proofs = []
        for candidate in order[:_PROOFS]:
            number = numbers[candidate]
            after = self._proving.judge(self._folder / str(self._steps[number].file))
            drop = metrics.drop(after.metric, before.value, after.value)
            meets = drop <= self._job.max_drop
            proofs.append(
                Proof(samples=after.samples, float_value=before.value, value=after.value, drop=drop, meets=meets)
            )
            if meets:
                self._take(number)
                return tuple(proofs), self._interval(self._proving, number, in_float.metric)
        return tuple(proofs), None

    def _interval(self, judge: Judge, number: int, metric: Metric) -> intervals.Interval | None:
        """Compare a variant with float sample by sample."""
        if metric is not Metric.ACCURACY:
            return None
        beside = judge.judge(self._folder / str(self._steps[number].file), beside_float=True)
        if beside.lost is None or beside.won is None:
            return None
        return intervals.paired(lost=beside.lost, won=beside.won, samples=beside.samples)

    def _take(self, number: int) -> None:
        self._steps[number] = dataclasses.replace(self._steps[number], taken=True)

    def _mark(self) -> None:
        best = search.pareto(self._path)
        self._steps = [
            dataclasses.replace(step, pareto=candidate in best)
            for step, (candidate, _) in zip(self._steps, self._path, strict=True)
        ]

    def _resume(self) -> None:
        if (self._folder / CRASHED).exists():
            self._crashed = json.loads((self._folder / CRASHED).read_text())
        if (self._folder / STEPS).exists():
            saved = json.loads((self._folder / STEPS).read_text())
            self._steps = [codec.decode(Step, entry, "step") for entry in saved["steps"]]
            self._layers = tuple(codec.decode(Layer, entry, "layer") for entry in saved["layers"])
            self._float_edges, self._ranked = saved["float_edges"], saved["ranked"]

    def _save(self) -> None:
        state = {
            "steps": codec.encode(tuple(self._steps)),
            "layers": codec.encode(self._layers),
            "float_edges": self._float_edges,
            "ranked": self._ranked,
        }
        (self._folder / STEPS).write_text(json.dumps(state))


def key(step: Step) -> str:
    """Return the name of a variant in the folder's notes."""
    return json.dumps([step.scheme.value, step.float_edges, *step.kept])


def describe(step: Step) -> str:
    """Return a variant in words: `int8 with 3 layers and the edges in float`."""
    words = [f"{len(step.kept)} layer{'s' if len(step.kept) > 1 else ''}"] if step.kept else []
    words += ["the edges"] if step.float_edges else []
    return step.scheme.value + (f" with {' and '.join(words)} in float" if words else "")
