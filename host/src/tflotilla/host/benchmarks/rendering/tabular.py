"""A run as CSV, one row a cell, for spreadsheets and data frames. Latencies are nanoseconds, as they were measured.

Rules: the columns are always the same, what nobody measured is empty; a text that a spreadsheet would take for a
formula gets an apostrophe in front (OWASP, CSV injection). What it does NOT do: round.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import foreign, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.host.benchmarks.foreign import ForeignFigures
    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.shared.contract.benchmark import BenchmarkCell, Distribution, Measurement

Value = str | int | float | bool | None

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
PERCENTILES = (5.0, 50.0, 90.0, 95.0, 99.0, 99.9)


def render(run: Run) -> str:
    """Return the header and one line for each cell; a board without cells has one line with its error."""
    found = [_row(run, board, cell) for board in run.boards for cell in (board.cells or (None,))]
    found += [_foreign(run, each) for each in run.foreign]
    with io.StringIO(newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(_COLUMNS), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _safe(value) for name, value in row.items()} for row in found)
        return stream.getvalue()


def _safe(value: Value) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    shown = words.cut(value, 1000)
    return f"'{shown}" if shown.startswith(_FORMULAS) else shown


def _row(run: Run, board: BoardRun, cell: BenchmarkCell | None) -> Mapping[str, Value]:
    identity = board.identity
    row: dict[str, Value] = {
        "run": run.id,
        "name": run.name,
        "tool": run.tool,
        "created": words.when(run.created),
        "board": board.board,
        "board_error": board.error,
        "model": board.model,
        "scenario": board.request.method.scenario,
        "seed": board.request.method.seed,
    }
    if identity is not None:
        row |= {
            "hardware": identity.facts.model,
            "revision": identity.revision,
            "cores": identity.facts.cores,
            "ram_bytes": identity.facts.ram_bytes,
            "kernel": identity.facts.kernel,
            "clock_source": identity.clock_source,
            "python": identity.facts.python,
            "numpy": identity.numpy,
            "agent": identity.agent_version,
            "model_sha256": identity.model_sha256,
            "bundle": identity.bundle,
        }
    if cell is None:
        return row
    inference = cell.configuration.inference
    row |= {
        "runtime": cell.runtime.name if cell.runtime else inference.runtime,
        "runtime_version": cell.runtime.version if cell.runtime else None,
        "threads": inference.num_threads,
        "xnnpack": inference.xnnpack,
        "delegate": inference.delegate.library if inference.delegate else None,
        "delegate_active": cell.delegate_active,
        "nodes_delegated": cell.nodes_delegated,
        "nodes_total": cell.nodes_total,
        "affinity": " ".join(map(str, inference.affinity)),
        "batch": cell.configuration.batch,
        "verdict": words.standing(cell),
        "reasons": "; ".join(words.reasons(cell)),
    }
    if cell.measurement is not None:
        row |= _figures(cell.measurement)
    if cell.serving is not None:
        row |= {"serving_p50_ns": cell.serving.p50_ns, "serving_before_p50_ns": cell.serving.before_p50_ns}
        row |= {"serving_p99_ns": cell.serving.p99_ns, "serving_before_p99_ns": cell.serving.before_p99_ns}
    return row


def _foreign(run: Run, found: ForeignFigures) -> Mapping[str, Value]:
    return {
        "run": run.id,
        "name": run.name,
        "tool": found.tool,
        "created": words.when(run.created),
        "model": found.model,
        "threads": found.num_threads,
        "xnnpack": found.xnnpack,
        "delegate_active": found.accelerator,
        "nodes_delegated": found.nodes_delegated,
        "nodes_total": found.nodes_total,
        "verdict": foreign.STANDING,
        "reasons": foreign.NOTE,
        "runs": found.runs,
        "count": found.runs,
        "min_ns": found.min_ns,
        "mean_ns": found.mean_ns,
        "std_ns": found.std_ns,
        "max_ns": found.max_ns,
        "p5_ns": found.p5_ns,
        "p50_ns": found.median_ns,
        "p95_ns": found.p95_ns,
        "load_ns": found.init_ns,
        "first_inference_ns": found.first_inference_ns,
    }


def _figures(found: Measurement) -> Mapping[str, Value]:
    conditions = found.conditions
    return {
        "goldens": found.correctness.goldens,
        "goldens_total": found.correctness.goldens_total,
        "worst_lsb": found.correctness.worst_lsb,
        "right": found.correctness.right,
        "labelled": found.correctness.labelled,
        "runs": found.runs,
        "seconds": found.seconds,
        "samples_per_second": found.samples_per_second,
        "qps": found.qps,
        **_distribution("", found.latency),
        **_distribution("invoke_", found.invoke),
        "import_ns": found.load.import_ns,
        "load_ns": found.load.load_ns,
        "delegate_ns": found.load.delegate_ns,
        "allocate_ns": found.load.allocate_ns,
        "first_inference_ns": found.load.first_inference_ns,
        "cpu_seconds_per_inference": found.cpu_seconds_per_inference,
        "peak_rss_bytes": found.peak_rss_bytes,
        "drift": found.drift.change,
        "drift_p": found.drift.p_value,
        "harness_share": found.harness.share,
        "late": found.late,
        "temperature_before_c": conditions.before.temperature_c,
        "temperature_after_c": conditions.after.temperature_c,
        "governor": conditions.before.governor,
        "throttled": conditions.after.throttled,
        "other_cpu_percent": conditions.other_cpu_percent,
        "cold_p50_ns": found.sustained.cold_p50_ns if found.sustained else None,
        "steady_p50_ns": found.sustained.steady_p50_ns if found.sustained else None,
    }


def _distribution(prefix: str, found: Distribution) -> Mapping[str, Value]:
    row: dict[str, Value] = {
        f"{prefix}count": found.count,
        f"{prefix}min_ns": found.min_ns,
        f"{prefix}mean_ns": found.mean_ns,
        f"{prefix}std_ns": found.std_ns,
        f"{prefix}mad_ns": found.mad_ns,
        f"{prefix}max_ns": found.max_ns,
    }
    for percent in PERCENTILES:
        figure = words.found(found, percent)
        name = prefix + words.percent_name(percent).replace(".", "_")
        row[f"{name}_ns"] = None if figure is None else figure.value_ns
        row[f"{name}_bound_ns"] = None if figure is None else figure.bound_ns
    return row


def _spread(prefix: str) -> tuple[str, ...]:
    figures = ("count", "min_ns", "mean_ns", "std_ns", "mad_ns", "max_ns")
    names = [words.percent_name(percent).replace(".", "_") for percent in PERCENTILES]
    return tuple(
        prefix + each for each in (*figures, *(f"{name}{end}" for name in names for end in ("_ns", "_bound_ns")))
    )


_COLUMNS = (
    *("run", "name", "tool", "created", "board", "hardware", "revision", "cores"),
    *("ram_bytes", "kernel", "clock_source", "python", "numpy", "agent", "model", "model_sha256", "bundle"),
    *("scenario", "seed", "runtime", "runtime_version", "threads", "xnnpack", "delegate", "delegate_active"),
    *("nodes_delegated", "nodes_total", "affinity", "batch", "verdict", "reasons", "board_error"),
    *("goldens", "goldens_total", "worst_lsb", "right", "labelled"),
    *("runs", "seconds", "samples_per_second", "qps"),
    *_spread(""),
    *_spread("invoke_"),
    *("import_ns", "load_ns", "delegate_ns", "allocate_ns", "first_inference_ns"),
    *("cpu_seconds_per_inference", "peak_rss_bytes", "drift", "drift_p", "harness_share", "late"),
    *("temperature_before_c", "temperature_after_c", "governor", "throttled", "other_cpu_percent"),
    *("cold_p50_ns", "steady_p50_ns"),
    *("serving_p50_ns", "serving_before_p50_ns", "serving_p99_ns", "serving_before_p99_ns"),
)
