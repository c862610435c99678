"""One cell of a benchmark: how long it runs, and what it may claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import models_made
from tests.device import running_bundles
from tests.device.children import RUNTIMES, ask
from tflotilla.device.benchmark import __main__ as benchmark
from tflotilla.device.reports import BenchmarkSpec
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.messages import BenchmarkCell

if TYPE_CHECKING:
    from pathlib import Path


def _spec(
    bundle: Path, *, runtime: str = RUNTIMES[-1], threads: int = 1, min_runs: int = 70, min_seconds: float = 0.0
) -> BenchmarkSpec:
    return BenchmarkSpec(
        bundle=str(bundle),
        inference=codec.decode(InferenceConfig, {"runtime": runtime, "num_threads": threads}, "test"),
        warmup_runs=5,
        min_runs=min_runs,
        min_seconds=min_seconds,
        max_seconds=30.0,
    )


class _Clock:
    """Each `once` takes as long as told; reading the time takes none."""

    def __init__(self, once_ns: int) -> None:
        self._once_ns = once_ns
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def once(self) -> None:
        self.now_ns += self._once_ns


@pytest.mark.parametrize(
    ("once_ms", "min_runs", "min_seconds", "max_seconds", "expected"),
    [
        (1, 50, 1.0, 30.0, 1000),
        (100, 50, 1.0, 30.0, 50),
        (1000, 50, 1.0, 30.0, 30),
        (60_000, 50, 1.0, 30.0, 1),
        (1, 0, 0.0, 0.0, 1),
    ],
    ids=["until the seconds are reached", "until the runs are", "never beyond the cap", "once at least", "asked none"],
)
def test_a_cell_runs_until_both_minima_or_the_cap(
    once_ms: int, min_runs: int, min_seconds: float, max_seconds: float, expected: int
) -> None:
    clock = _Clock(once_ms * 1_000_000)

    taken = benchmark.timed_runs(
        clock.once, min_runs=min_runs, min_seconds=min_seconds, max_seconds=max_seconds, clock=clock
    )

    assert [once_ms * 1_000_000] * expected == list(taken)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_cell_is_measured_in_a_process_of_its_own(tmp_path: Path, runtime: str, threads: int) -> None:
    done = ask("benchmark", _spec(running_bundles.write(tmp_path / "b"), runtime=runtime, threads=threads))

    cell = codec.decode(BenchmarkCell, codec.parse_json(done.stdout, "cell"), "cell")
    assert cell.error is None
    assert cell.runtime is not None
    assert cell.runtime.name == runtime
    assert cell.num_threads == threads
    assert cell.latency is not None
    assert cell.runs == cell.latency.count >= 70
    assert cell.enough_for_p90
    assert not cell.enough_for_p99 or cell.runs >= 662
    assert cell.load_ns is not None
    assert cell.first_inference_ns is not None
    assert cell.load_ns > 0
    assert cell.first_inference_ns > 0
    assert cell.peak_rss_bytes is not None
    assert cell.peak_rss_bytes > 5 << 20


@pytest.mark.parametrize(
    ("runs", "p90", "p99"), [(63, False, False), (64, True, False), (661, True, False), (662, True, True)]
)
def test_a_percentile_is_claimed_only_with_enough_runs(tmp_path: Path, runs: int, *, p90: bool, p99: bool) -> None:
    cell = benchmark.measure(_spec(running_bundles.write(tmp_path / "b"), min_runs=runs))

    assert (runs, p90, p99) == (cell.runs, cell.enough_for_p90, cell.enough_for_p99)


def test_a_model_that_can_not_run_is_an_error_in_the_cell(tmp_path: Path) -> None:
    bundle = running_bundles.write(tmp_path / "b", model=models_made.read("custom_op"))

    done = ask("benchmark", _spec(bundle))

    cell = codec.decode(BenchmarkCell, codec.parse_json(done.stdout, "cell"), "cell")
    assert done.returncode == 0
    assert cell.error is not None
    assert "TflotillaUnknown" in cell.error
    assert cell.latency is None
