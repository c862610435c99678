"""One model on one runtime, evaluated in this process; `models.evaluate` calls it in a child."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import detection_data, flatbuffer
from tflotilla.host.models.evaluation import answering, judges, plan
from tflotilla.host.models.evaluation.feeding import Feeder, Samples
from tflotilla.host.models.evaluation.task import Data, Task, open_data
from tflotilla.host.models.inspect import ModelInspection, inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ModelError, TflotillaError
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.statistics import summarize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.shared.inference.runtime import LoadedModel

_NATURAL = (0, 1, 2, 3)


def run(*, task: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate, and return runtime, samples, stages and the judge's verdict as JSON.

    Raises:
        ModelError: the runtime refuses the model or the reference, or a kernel fails.
        DatasetError, UsageError: the data don't fit; see `open_data`.

    """
    wanted = codec.decode(Task, dict(task), "task")
    engine = runtimes.find(wanted.runtime)
    model = Path(wanted.model)
    inspection = inspect_model(model)
    data = open_data(wanted, inspection)
    competitors = [_competitor(model, inspection, data, wanted)]
    loaded = engine.load(model, runtimes.LoadOptions(num_threads=wanted.num_threads))
    if wanted.reference is not None:
        reference = Path(wanted.reference)
        try:
            competitors.append(_competitor(reference, inspect_model(reference), data, wanted))
            engine.load(reference, runtimes.LoadOptions(num_threads=wanted.num_threads))
        except TflotillaError as error:
            raise type(error)(f"reference {reference}: {error}") from error
    judge = _judge(wanted, competitors, data)
    stages = answering.run(
        engine,
        competitors,
        data.samples,
        judge,
        loaded=loaded,
        answerer=_answerer(wanted.metric, competitors[0], loaded),
        num_threads=wanted.num_threads,
    )
    verdict = judge.verdict()
    if wanted.metric in (Metric.COSINE, Metric.SQNR) and isinstance(judge, _Both):
        verdict |= judge.classes.verdict()
    return verdict | {
        "runtime": str(engine.offer),
        "samples": data.samples.count,
        "stages": {stage: codec.encode(summarize(values)) for stage, values in stages.items()},
    }


def _competitor(file: Path, inspection: ModelInspection, data: Data, task: Task) -> answering.Competitor:
    samples = data.samples
    if task.reference == str(file) and samples.arrays and len(inspection.inputs) > 1:
        mine = inspect_model(Path(task.model)).inputs
        places = dict(plan.pair(mine, inspection.inputs, "input"))
        order = sorted(range(len(mine)), key=lambda number: places[number])
        samples = Samples(path=samples.path, arrays=tuple(samples.arrays[number] for number in order))
    feeder = Feeder(samples, inspection.inputs, task.preprocessing)
    return answering.Competitor(file=file, inspection=inspection, feeder=feeder)


def _answerer(metric: Metric, competitor: answering.Competitor, loaded: LoadedModel) -> Answerer:
    """Return what a board would do with the outputs, whose time counts as `postprocess`."""
    kind = Postprocessing(kind="raw")
    if metric is Metric.ACCURACY:
        kind = Postprocessing(top_k=min(kind.top_k, max(1, plan.class_count(competitor.inspection))))
    elif metric is Metric.MAP and output_order(competitor.file) == _NATURAL:
        kind = Postprocessing(kind="detection")
    return Answerer(kind, loaded.outputs, ())


def output_order(file: Path) -> tuple[int, ...]:
    """Return which outputs of a detector are boxes, classes, scores and count: what its op says, in whatever order.

    Raises:
        ModelError: the outputs aren't the op's own.

    """
    model = flatbuffer.read(file.read_bytes())
    graph = model.subgraphs[0]
    outputs = [int(index) for index in graph.outputs]
    for operator in graph.operators:
        if flatbuffer.op_name(model, operator) == plan.DETECTION_OP:
            given = [int(index) for index in operator.outputs]
            if set(given) <= set(outputs):
                return tuple(outputs.index(index) for index in given)
    raise ModelError(f"{file}: its outputs are not those of {plan.DETECTION_OP}")


class _Both:
    """Likeness, and beside it the agreement of the best classes."""

    def __init__(self, likeness: judges.LikenessJudge, classes: judges.ClassJudge) -> None:
        self._likeness = likeness
        self.classes = classes

    def look(self, rows: Any, outputs: Any) -> tuple[Any, Any]:  # noqa: ANN401 - see `Judge`
        return self._likeness.look(rows, outputs), self.classes.look(rows, outputs)

    def add(self, seen: tuple[Any, Any]) -> None:
        self._likeness.add(seen[0])
        self.classes.add(seen[1])

    def verdict(self) -> dict[str, Any]:
        return self._likeness.verdict()


def _judge(
    task: Task, competitors: Sequence[answering.Competitor], data: Data
) -> judges.ClassJudge | judges.BoxJudge | judges.LikenessJudge | _Both:
    inspections = [each.inspection for each in competitors]
    outputs = [each.outputs for each in inspections]
    if task.metric is Metric.ACCURACY:
        return judges.ClassJudge(np.array(data.labels, dtype=np.int64), [each[0] for each in outputs])
    if data.boxes is not None and task.preprocessing is not None:
        stretched = task.preprocessing.resize == "stretch"
        return judges.BoxJudge(
            data.boxes.boxes,
            [(1, 1) if stretched else detection_data.size_of(file) for file in data.boxes.files],
            outputs,
            [output_order(each.file) for each in competitors],
            [judges.frame(task.preprocessing, each.inputs[0]) for each in inspections],
        )
    likeness = judges.LikenessJudge(outputs, plan.pair(outputs[0], outputs[1], "output"))
    if all(plan.classifies(each) for each in inspections):
        return _Both(likeness, judges.ClassJudge(None, [each[0] for each in outputs]))
    return likeness
