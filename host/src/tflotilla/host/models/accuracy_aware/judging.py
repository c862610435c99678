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
    #: Whether each sample's best class is the right one; empty where classes are not what was judged.
    hits: tuple[bool, ...] = ()


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

    def judge(self, file: Path, *, limit: int | None = None) -> Judgement:
        """Measure one file.

        Raises:
            ModelError: the runtime can't run it.
            UsageError, DatasetError: the data don't fit the model.
            BoardError: the runtime is not installed here.

        """
        report = evaluate.evaluate(
            EvaluationRequest(
                models=(file,),
                data=self.data,
                preprocess=self.preprocess,
                labels=self.labels,
                runtimes=(self.runtime,),
                num_threads=self.num_threads,
                limit=limit or self.limit,
                label_offset=self.label_offset,
                metric=self.metric,
                reference=None,  # TEMPORARY
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
    )
