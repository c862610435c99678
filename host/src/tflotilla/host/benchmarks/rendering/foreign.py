"""Figures that another program measured, as rows of words. What it did not say is `-`; nobody here vouches for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import words

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.foreign import ForeignFigures

COLUMNS = ("model", "with", "median, ms", "mean, ms", "p95, ms", "runs", "right", "verdict")
FIGURES = ("median, ms", "mean, ms", "p95, ms", "runs")
#: Neither VALID nor INVALID: nobody looked.
STANDING = "UNKNOWN"
NOTE = "another program measured these: its answers were not checked, and the board's state is not known"


def row(found: ForeignFigures) -> tuple[str, ...]:
    """Return the cells of `COLUMNS`."""
    return (
        words.name(found.model),
        choices(found),
        words.figure(found.median_ns) or words.NOTHING,
        words.figure(found.mean_ns) or words.NOTHING,
        words.figure(found.p95_ns) or words.NOTHING,
        words.NOTHING if found.runs is None else f"{found.runs:,}",
        "unchecked",
        STANDING,
    )


def choices(found: ForeignFigures) -> str:
    """Name what it ran with, as far as it said."""
    said: list[str] = [found.tool]
    if found.num_threads is not None:
        said.append(f"{found.num_threads} thread{'' if found.num_threads == 1 else 's'}")
    if found.xnnpack is not None:
        said.append("XNNPACK" if found.xnnpack else "no XNNPACK")
    if found.accelerator:
        said.append(words.name(found.accelerator))
    return ", ".join(said)


def figures(found: ForeignFigures) -> tuple[tuple[str, str], ...]:
    """Return everything that it said."""
    times = (
        ("mean", found.mean_ns),
        ("std", found.std_ns),
        ("min", found.min_ns),
        ("p5", found.p5_ns),
        ("median", found.median_ns),
        ("p95", found.p95_ns),
        ("max", found.max_ns),
        ("initialization", found.init_ns),
        ("first inference", found.first_inference_ns),
        ("mean of the warm-up", found.warmup_mean_ns),
        ("printed to the nearest", found.resolution_ns),
    )
    rows = [(what, words.duration(value)) for what, value in times if value is not None]
    counts = (("timed runs", found.runs), ("warm-up runs", found.warmup_runs))
    rows += [(what, f"{value:,}") for what, value in counts if value is not None]
    if found.nodes_delegated is not None and found.nodes_total is not None:
        rows.append(("nodes delegated", f"{found.nodes_delegated} of {found.nodes_total}"))
    if found.memory_growth_bytes is not None:
        rows.append(("memory grew by", words.mebibytes(found.memory_growth_bytes)))
    rows += [(words.name(key), words.name(value)) for key, value in sorted(found.options.items())]
    return tuple(rows)
