"""What a model answers on data that is like what it was made for: the reference from which drift is measured later.

From an evaluation, where there is one: many samples, and labelled ones. Else from the data that goldens or
`--representative` name, answered here by the board's own code. Noise is like nothing, and makes no reference.

What it does NOT do: judge whether the data is like what boards will see.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child, samples
from tflotilla.host.models.evaluation import judges
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.manifest import Reference
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.models.evaluate import Answers

#: Enough to tell a change of a tenth in a label's share from chance.
_MOST_SAMPLES = 500
#: Samples are prepared before they are run.
_MOST_BYTES = 128 << 20
_TIMEOUT_S = 600


def of_evaluation(answers: Answers, processing: Postprocessing, labels: Sequence[str]) -> Reference | None:
    """Return the reference that an evaluation holds, under the bundle's own labels; None where a board answers nothing.

    A detector's answers are read by its bundle's threshold, which no evaluation knows.
    """
    if processing.kind != "classification" or not answers.winners:
        return None
    named: Counter[str] = Counter()
    for index, count in answers.winners.items():
        number = int(index)
        named[labels[number] if number < len(labels) else index] += count
    return Reference(
        samples=sum(named.values()),
        labels=dict(sorted(named.items())),
        scores=answers.softmax_scores if processing.softmax else answers.scores,
    )


def of_data(
    model: Path,
    data: Path,
    preprocessing: Preprocessing | None,
    processing: Postprocessing,
    labels: Sequence[str],
    *,
    runtime: str,
) -> Reference | None:
    """Return what the model answers on some data, with the runtime of that name; None where it answers nothing.

    Raises:
        ModelError: the runtime crashes, or a score is no number.
        DatasetError: the data can't be read.

    """
    found = child.call(
        "tflotilla.host.bundles.references:run_here",
        {
            "model": str(model),
            "data": str(data),
            "preprocessing": preprocessing,
            "processing": processing,
            "labels": list(labels),
            "runtime": runtime,
        },
        doing="running it for its reference",
        timeout_s=_TIMEOUT_S,
    )
    return None if found is None else codec.decode(Reference, found, "reference")


def run_here(
    model: str,
    data: str,
    preprocessing: Any,  # noqa: ANN401 - JSON
    processing: Any,  # noqa: ANN401 - JSON
    labels: list[str],
    runtime: str,
) -> dict[str, Any] | None:
    """Answer the data in this process; `of_data` calls it in a child."""
    file = Path(model)
    inspection = inspect_model(file)
    size = sum(
        int(np.prod([max(1, edge) for edge in spec.shape])) * np.dtype(spec.dtype).itemsize
        for spec in inspection.inputs
    )
    limit = max(1, min(_MOST_SAMPLES, _MOST_BYTES // max(1, size)))
    prepared = None if preprocessing is None else codec.decode(Preprocessing, preprocessing, "preprocessing")
    kind = codec.decode(Postprocessing, processing, "postprocessing")
    inputs = samples.load(Path(data), inspection.inputs, prepared, limit=limit)
    loaded = runtimes.find(runtime).load(file, runtimes.LoadOptions())
    pipeline = Pipeline(loaded, None, Answerer(kind, loaded.outputs, labels))
    won = [result.top[0] for each in inputs if (result := pipeline.infer(each)).top]
    if not won:
        return None
    reference = Reference(
        samples=len(won),
        labels=dict(sorted(Counter(best.label for best in won).items())),
        scores=tuple(judges.tenths(np.array([best.score for best in won])).tolist()),
        data="calibration",
    )
    return dict(codec.encode(reference))
