"""Whether a cell's p50 of invoke is the model's: held against a loop in C, and `litert-benchmark`, in turns.

Each is a fresh process, one after the other, several rounds; what counts is the median of the rounds' ratios, because
memory lies differently in each process. The process of the C loop also runs a cell's own loop, in turns on the same
interpreter: that ratio has no other process in it. `litert-benchmark` runs LiteRT's other engine and rounds to 10 µs:
it is shown, and is a reference too for models of a millisecond and more.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import busy, models, native_loop
from tests.device.benchmark import cells
from tflotilla.shared.contract.benchmark import Method

LIMIT = 0.02
HARNESS_LIMIT = 0.01
#: From there on the harness must not matter.
LARGE_NS = 1_000_000
ROUNDS = 7
_WARM_S = 0.3
#: A median is enough here.
_LEAST_RUNS = 21
_RUNS_OF_OTHERS = 50, 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """One model on one runtime; nanoseconds, medians over the rounds."""

    model: str
    runtime: str
    cell_ns: float
    native_ns: float
    litert_benchmark_ns: float | None
    #: Of the rounds' ratios the median: cell / native, cell / litert-benchmark.
    ratio: float
    litert_ratio: float | None
    #: The same in one process: a cell's loop / C loop, in turns.
    turns_ratio: float
    harness_share: float
    others: busy.Others

    @property
    def large(self) -> bool:
        """Whether the harness must not matter."""
        return self.cell_ns >= LARGE_NS

    @property
    def kept(self) -> bool | None:
        """Whether it is as near as promised to either; None: nobody can tell."""
        if self.others.too_busy:
            return None
        near = max(abs(self.ratio - 1), abs(self.turns_ratio - 1)) <= LIMIT
        if self.litert_ratio is not None and self.large:
            near = near or abs(self.litert_ratio - 1) <= LIMIT
        return near and (not self.large or self.harness_share <= HARNESS_LIMIT)


def measure(
    folder: Path, model: models.Measured, runtime: str, *, seconds: float, patience_s: float, rounds: int = ROUNDS
) -> Parity | None:
    """Measure one model; None where this machine doesn't have it, or no C compiler."""
    data = model.read()
    folder.mkdir(parents=True, exist_ok=True)
    library = native_loop.build(folder)
    if data is None or library is None:
        return None
    bundle = models.write_bundle(folder / "bundle", data, runtime)
    file = bundle / "model.tflite"
    method = Method(
        warmup_seconds=_WARM_S,
        min_runs=_LEAST_RUNS,
        min_seconds=seconds,
        max_seconds=30 + 4 * seconds,
        keep_latencies=0,
    )
    with_litert = runtime == "ai-edge-litert" and shutil.which("litert-benchmark", path=_here()) is not None
    busy.wait_for_quiet(patience_s)
    watch = busy.Watch()
    cell_ns, turns, litert_ns, shares = [], [], [], []
    for number in range(rounds):
        # Who comes first changes, so that a machine that grows slower is nobody's advantage.
        for who in ("cell", "native") if number % 2 else ("native", "cell"):
            if who == "native":
                turns.append(native_loop.run(library, file, runtime, seconds))
            else:
                measured = cells.ask(cells.spec(bundle, method=method, runtime=runtime)).measured
                cell_ns.append(measured.invoke.median_ns)
                shares.append(measured.harness.share)
        if with_litert:
            litert_ns.append(_litert_benchmark_ns(file, folder, seconds, turns[-1].native_ns))
    others = watch.others()
    native_ns = [turn.native_ns for turn in turns]
    return Parity(
        model=model.title,
        runtime=runtime,
        cell_ns=statistics.median(cell_ns),
        native_ns=statistics.median(native_ns),
        litert_benchmark_ns=statistics.median(litert_ns) if litert_ns else None,
        ratio=statistics.median(c / n for c, n in zip(cell_ns, native_ns, strict=True)),
        litert_ratio=statistics.median(c / n for c, n in zip(cell_ns, litert_ns, strict=True)) if litert_ns else None,
        turns_ratio=statistics.median(turn.loop_ns / turn.native_ns for turn in turns),
        harness_share=statistics.median(shares),
        others=others,
    )


def _here() -> str:
    return str(Path(sys.executable).parent)


def _litert_benchmark_ns(model: Path, folder: Path, seconds: float, about_ns: float) -> float:
    least, most = _RUNS_OF_OTHERS
    runs = min(most, max(least, int(seconds * 1e9 / about_ns)))
    result = folder / "litert.json"
    command = [shutil.which("litert-benchmark", path=_here()) or "litert-benchmark", "--model", str(model)]
    command += ["--num_threads", "1", "--num_runs", str(runs), "--warmup_runs", str(max(least, runs // 4))]
    subprocess.run([*command, "--result_json", str(result)], capture_output=True, check=True, timeout=300)
    return float(json.loads(result.read_text())["latency"]["median_ms"]) * 1e6
