"""Which cells of a benchmark are run, and which requests a board does not take on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tflotilla.device import benchmarking
from tflotilla.device.benchmarking import Cell
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.messages import BenchmarkRequest

TFLITE = RuntimeOffer(name="tflite-runtime", version="2.14.0")
LITERT = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
REQUEST = BenchmarkRequest(request="r")


def test_no_runtimes_means_every_runtime() -> None:
    assert benchmarking.plan(REQUEST, (TFLITE, LITERT), 4) == (
        Cell(runtime=TFLITE, num_threads=1),
        Cell(runtime=LITERT, num_threads=1),
    )


def test_cells_go_runtime_by_runtime_and_each_once() -> None:
    request = replace(REQUEST, runtimes=("ai-edge-litert", "ai-edge-litert"), threads=(4, 1, 4))

    assert [(cell.runtime, cell.num_threads) for cell in benchmarking.plan(request, (TFLITE, LITERT), 4)] == [
        (LITERT, 1),
        (LITERT, 4),
    ]


def test_more_threads_than_cores_are_refused_cell_by_cell() -> None:
    cells = benchmarking.plan(replace(REQUEST, threads=(2, 4)), (TFLITE,), 2)

    assert [cell.refusal for cell in cells] == [None, "4 threads, and this board has 2 cores"]


def test_a_runtime_that_is_not_installed_is_a_cell_with_the_reason() -> None:
    (cell,) = benchmarking.plan(replace(REQUEST, runtimes=("onnxruntime",)), (TFLITE,), 2)

    assert cell == Cell(runtime=None, num_threads=1, refusal="onnxruntime is not installed on this board")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": ""}, "request must be 1..128 characters, not 0"),
        ({"request": "x" * 200}, "request must be 1..128 characters, not 200"),
        ({"threads": (0,)}, "threads must be 1..64, not 0"),
        ({"threads": (65,)}, "threads must be 1..64, not 65"),
        ({"threads": ()}, "threads is empty"),
        ({"warmup_runs": -1}, "warmup_runs must be 0..1e+06, not -1"),
        ({"min_runs": 0}, "min_runs must be 1..1e+06, not 0"),
        ({"min_runs": 10**9}, "min_runs must be 1..1e+06, not 1e+09"),
        ({"max_seconds": 601.0}, "max_seconds must be 0.001..600, not 601"),
        ({"min_seconds": 31.0}, "min_seconds must be 0..30 (max_seconds), not 31"),
        ({"min_seconds": -1.0}, "min_seconds must be 0..600, not -1"),
        ({"threads": tuple(range(1, 40)), "runtimes": ("a", "b")}, "78 cells; at most 64 at once"),
    ],
)
def test_a_request_beyond_the_limits_is_refused_with_figure_and_limit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError) as caught:
        benchmarking.plan(replace(REQUEST, **change), (TFLITE,), 4)

    assert str(caught.value) == f"benchmark: {message}"


def test_a_board_without_a_runtime_says_so() -> None:
    with pytest.raises(ContractError, match="no runtime is installed"):
        benchmarking.plan(REQUEST, (), 4)
