"""Invoke latency of several files on one runtime, side by side on this machine: what is compared is interleaved.

A machine's pace drifts (heat, neighbours), so the files take turns in one child process, and medians are compared. What
it does NOT do: say what a board takes (its own benchmark does), or measure anything around `invoke`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child, samples
from tflotilla.shared.contract import codec, messages
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.statistics import summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Enough for a p50 that is sure (11) and a p90 (130 needs more); slow files stop at the time instead.
DEFAULT_RUNS = 200
DEFAULT_SECONDS = 8.0
_WARM_UP_RUNS = 3
_TURN_RUNS = 10
_LEAST_RUNS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One file's invokes on one runtime."""

    #: Name and version: `ai-edge-litert==2.1.0`.
    runtime: str
    invoke: messages.StageLatency
    #: How many nodes a delegate (XNNPACK) computes; 0 when the built-in kernels do all.
    delegated_nodes: int


def compare(
    files: Sequence[Path],
    runtime: str,
    *,
    num_threads: int = 1,
    runs: int = DEFAULT_RUNS,
    seconds: float = DEFAULT_SECONDS,
) -> tuple[Latency, ...]:
    """Measure every file for `runs` invokes or `seconds`, whichever ends first, and for 11 invokes at least.

    Raises:
        ModelError: a file can't be loaded or run, or crashes the runtime.
        BoardError: the runtime isn't installed here.

    """
    answer = child.call(
        "tflotilla.host.models.latency:run_here",
        {
            "files": [str(path) for path in files],
            "runtime": runtime,
            "num_threads": num_threads,
            "runs": runs,
            "seconds": seconds,
        },
        doing=f"{runtime} on {', '.join(path.name for path in files)}",
    )
    return tuple(codec.decode(Latency, entry, "latency") for entry in answer)


def run_here(*, files: Sequence[str], runtime: str, num_threads: int, runs: int, seconds: float) -> list[Any]:
    """Measure in this process; `compare` calls it in a child."""
    engine = runtimes.find(runtime)
    loaded = [engine.load(Path(file), runtimes.LoadOptions(num_threads=num_threads)) for file in files]
    for model in loaded:
        model.set_inputs(samples.noise(model.inputs, None, count=1)[0])
        for _ in range(_WARM_UP_RUNS):
            model.invoke()
    found: list[list[int]] = [[] for _ in loaded]
    spent_ns = [0] * len(loaded)
    while open_ones := [i for i in range(len(loaded)) if not _enough(found[i], spent_ns[i], runs, seconds)]:
        for i in open_ones:
            # The others ran meanwhile: the first invoke of a turn finds their data in the caches.
            loaded[i].invoke()
            for _ in range(min(_TURN_RUNS, runs)):
                start = time.perf_counter_ns()
                loaded[i].invoke()
                taken = time.perf_counter_ns() - start
                found[i].append(taken)
                spent_ns[i] += taken
    return [
        codec.encode(
            Latency(runtime=str(engine.offer), invoke=summarize(values), delegated_nodes=model.delegated_nodes)
        )
        for values, model in zip(found, loaded, strict=True)
    ]


def _enough(values: Sequence[int], spent_ns: int, runs: int, seconds: float) -> bool:
    return len(values) >= _LEAST_RUNS and (len(values) >= runs or spent_ns >= seconds * 1e9)
