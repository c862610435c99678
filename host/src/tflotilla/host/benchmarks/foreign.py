"""What another benchmark said of a model, as far as it said it.

Such figures are not a cell of ours: nobody knows the board's state, the answers were not checked, and single runs are
not there. So they stand apart, and what the other program did not say is None. What it does NOT do: read their files
(`importing`), or make up what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tflotilla.shared.contract.benchmark import OperatorProfile

ForeignTool = Literal["benchmark_model", "litert-benchmark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFigures:
    """One model in one configuration, by another program's word. Times are in nanoseconds, None is not said."""

    tool: ForeignTool
    #: The model's file name.
    model: str
    num_threads: int | None = None
    xnnpack: bool | None = None
    #: `gpu`, `CPU | NPU`, a library: as the program calls it.
    accelerator: str | None = None
    nodes_delegated: int | None = None
    nodes_total: int | None = None
    warmup_runs: int | None = None
    runs: int | None = None
    #: Until the first inference may begin.
    init_ns: float | None = None
    first_inference_ns: float | None = None
    warmup_mean_ns: float | None = None
    mean_ns: float | None = None
    #: As the program computes it: benchmark_model over all runs (n), litert-benchmark of the sample (n - 1).
    std_ns: float | None = None
    min_ns: float | None = None
    max_ns: float | None = None
    p5_ns: float | None = None
    median_ns: float | None = None
    p95_ns: float | None = None
    #: By how much the process grew until the end; benchmark_model's "memory footprint delta", overall.
    memory_growth_bytes: int | None = None
    #: The decimals that the program prints: its figures are not finer than this.
    resolution_ns: float | None = None
    #: benchmark_model's profiler, when it was on.
    profile: OperatorProfile | None = None
    #: The options that the program printed, in its own words.
    options: Mapping[str, str] = field(default_factory=dict)
