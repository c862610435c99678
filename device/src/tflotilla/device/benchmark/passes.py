"""What is found out in passes of their own, after everything that is timed: none of it disturbs a figure.

Labelled samples, the sustained run, the stages, the operators. The figures are there already: a pass that fails is a
note beside them. What it does NOT do: import numpy before it is needed, as importing it is timed.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tflotilla.device.benchmark import setup
from tflotilla.device.conditions import readings
from tflotilla.device.reports import Phase
from tflotilla.shared.contract.errors import DatasetError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.device.benchmark.correctness import Reproduced
    from tflotilla.device.benchmark.loops import Calls, Limits
    from tflotilla.device.benchmark.setup import Ready, Say
    from tflotilla.device.bundle_folder import BundleFolder
    from tflotilla.device.reports import CellSpec
    from tflotilla.shared.contract.benchmark import Measurement
    from tflotilla.shared.inference.runtime import Tensor
    from tflotilla.shared.inference.sample_set import SampleSet

    Tensors = tuple[Tensor, ...]

_NS = 1_000_000_000
_SLACK_S = 60.0
#: What the operators' pass may take.
_PROFILE_S = 60.0


class Loaded(NamedTuple):
    """A model that is loaded, right and warm, and what it is fed with."""

    ready: Ready
    bundle: BundleFolder
    calls: Calls
    #: As `calls.put` takes them.
    feed: Sequence[Any]
    rows: tuple[Tensors, ...]
    reproduced: Reproduced
    samples: SampleSet | None
    sample: Callable[[int], Tensors] | None
    #: How long one invoke takes, about.
    about_ns: int
    peak_rss_bytes: int


def add(loaded: Loaded, measurement: Measurement, spec: CellSpec, limits: Limits, say: Say) -> Measurement:
    """Return the measurement with what the method asks for besides.

    Args:
        loaded: the model that was timed.
        measurement: its figures.
        spec: the cell.
        limits: of the stages' pass.
        say: hears each pass as it begins.

    """
    method = spec.method
    passes = _Passes(loaded, spec, limits, say)
    wanted: tuple[tuple[str, bool, Callable[[Measurement], Measurement]], ...] = (
        ("right answers were not counted", bool(loaded.samples and loaded.samples.labels), passes.count_right),
        ("there is no sustained run", method.sustained_seconds is not None, passes.run_on),
        ("the stages were not timed", method.stages, passes.time_stages),
        ("the operators were not timed", method.profile, passes.time_operators),
    )
    for failure, asked, do in wanted:
        try:
            measurement = do(measurement) if asked else measurement
        except BrokenPipeError:
            # Nobody listens any more.
            raise
        except (TflotillaError, ValueError, RuntimeError, OSError, MemoryError) as error:
            said = f"{failure}: {' '.join(str(error).split()) or type(error).__name__}"
            noted = replace(measurement.verdict, notes=(*measurement.verdict.notes, said))
            measurement = replace(measurement, verdict=noted)
    return measurement


class _Passes:
    """The passes of one cell."""

    def __init__(self, loaded: Loaded, spec: CellSpec, limits: Limits, say: Say) -> None:
        self._loaded = loaded
        self._spec = spec
        self._limits = limits
        self._tell = say
        self._patience_s = setup.patience_s(spec)

    def _say(self, doing: str, at_most_s: float) -> None:
        self._tell(Phase(doing=doing, at_most_s=at_most_s))

    def count_right(self, measurement: Measurement) -> Measurement:
        """Count the labelled samples that the model answers right."""
        from tflotilla.device.benchmark import correctness

        loaded = self._loaded
        if loaded.samples is None or loaded.sample is None:
            return measurement
        kind = loaded.bundle.manifest.postprocessing.kind
        if kind != "classification":
            message = f"labels are classes, and the bundle's postprocessing is {kind}"
            raise DatasetError(message)
        labels = loaded.samples.labels
        each_s = 0.5 + 5 * loaded.about_ns / _NS
        self._say("counting right answers", self._patience_s + _SLACK_S + len(labels) * each_s)
        batch = self._spec.configuration.batch
        right, labelled = correctness.count_right(loaded.ready.model, loaded.sample, labels, batch=batch)
        return replace(measurement, correctness=replace(measurement.correctness, right=right, labelled=labelled))

    def run_on(self, measurement: Measurement) -> Measurement:
        """Find out what heat does."""
        from tflotilla.device.benchmark import sustained

        seconds = self._spec.method.sustained_seconds or 0.0
        sensors = readings.Sensors()
        figures = sustained.run(
            self._loaded.calls,
            itertools.cycle(self._loaded.feed),
            seconds,
            cold_p50_ns=measurement.invoke.median_ns,
            read=lambda at_s: sensors.read(at_s=at_s),
            begins=lambda at_s, part_s: self._say(
                f"running on, {at_s:.0f} of {seconds:.0f} s", part_s + self._patience_s
            ),
        )
        return replace(measurement, sustained=figures)

    def time_stages(self, measurement: Measurement) -> Measurement:
        """Time what stands around the invoke."""
        from tflotilla.device.benchmark import stages

        loaded = self._loaded
        self._say("timing the stages", _SLACK_S + self._patience_s)
        found = stages.run(
            loaded.ready.model,
            loaded.calls.invoke,
            loaded.bundle,
            rows=loaded.rows,
            samples=loaded.samples,
            batch=self._spec.configuration.batch,
            seed=self._spec.method.seed,
            limits=self._limits,
        )
        return replace(measurement, stages=found)

    def time_operators(self, measurement: Measurement) -> Measurement:
        """Find out where the time goes, in a process that may crash."""
        from tflotilla.device.benchmark import profiling

        timeout_s = 2 * _PROFILE_S + self._patience_s
        self._say("timing the operators", timeout_s + _SLACK_S)
        profile = profiling.ask(self._spec, seconds=_PROFILE_S, timeout_s=timeout_s)
        return replace(measurement, profile=profile)
