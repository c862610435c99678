"""How good one variant is, as `evaluate` says it: by the truth, or by its likeness to float.

What it does NOT do: say how much that is less than float's (`metrics.drop`), or take times (`latency`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.models import evaluate
from tflotilla.host.models.evaluate import EvaluationRequest
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.processing import Preprocessing

if TYPE_CHECKING:
    from tflotilla.host.models.evaluate import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was measured of one file."""

    metric: Metric
    value: float
    samples: int
    #: With its version.
    runtime: str
    #: Samples that the float model has right and this one wrong, and the other way round; where both were judged.
    lost: int | None = None
    won: int | None = None
    #: What is probably wrong with data or labels.
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges files on one data set with one runtime."""

    data: Path
    runtime: str
    num_threads: int = 1
    preprocess: Preprocessing | None = None
    labels: Path | None = None
    label_offset: int = 0
    limit: int | None = None
    metric: Metric | None = None
    #: The float file, once there is one.
    reference: Path | None = field(default=None)

    def judge(self, file: Path, *, beside_float: bool = False) -> Judgement:
        """Measure one file; `beside_float` compares sample by sample, and takes twice as long.

        Raises:
            ModelError: the runtime can't run it.
            UsageError, DatasetError: the data don't fit the model.
            BoardError: the runtime is not installed here.

        """
        needed = self.metric is None or not self.metric.needs_labels
        report = evaluate.evaluate(
            EvaluationRequest(
                models=(file,),
                data=self.data,
                preprocess=self.preprocess,
                labels=self.labels,
                runtimes=(self.runtime,),
                num_threads=self.num_threads,
                limit=self.limit,
                label_offset=self.label_offset,
                metric=self.metric,
                reference=self.reference if beside_float or needed else None,
            )
        )
        if not report.scores:
            raise ModelError(report.refusals[0].reason)
        return _judgement(report.scores[0])


def _judgement(score: Score) -> Judgement:
    return Judgement(
        metric=score.metric,
        value=score.value,
        samples=score.samples,
        runtime=score.runtime,
        lost=score.lost,
        won=score.won,
        hint=score.hint,
    )
