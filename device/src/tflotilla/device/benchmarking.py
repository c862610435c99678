"""Answers a BenchmarkRequest: which cells are run and which are refused (pure), and running them one by one.

The worker goes on serving meanwhile: figures are those of the board as it is used. What it does NOT do: measure (a
fresh child per cell does), or send.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tflotilla.device.children import ask
from tflotilla.device.reports import BenchmarkSpec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ContractError, ProbeError
from tflotilla.shared.contract.manifest import MANIFEST, MODEL, Manifest
from tflotilla.shared.contract.messages import BenchmarkCell, BenchmarkReport, BenchmarkRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Literal

    from tflotilla.shared.contract.agent_config import InferenceConfig

MAX_CELLS = 64
MAX_RUNS = 1_000_000
MAX_SECONDS = 600.0
_MAX_REQUEST_ID = 128
#: Loading, and a run that begins just before `max_seconds`.
_SLACK_S = 120.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One configuration to measure; `refusal` is why it is not."""

    runtime: RuntimeOffer | None
    num_threads: int
    refusal: str | None = None


def plan(request: BenchmarkRequest, offers: tuple[RuntimeOffer, ...], cores: int) -> tuple[Cell, ...]:
    """Return the cells in order: runtime by runtime, fewest threads first.

    Raises:
        ContractError: a figure of the request is beyond what a board takes on; the message names figure and limit.

    """
    _check_limits(request)
    names = request.runtimes or tuple(offer.name for offer in offers)
    by_name = {offer.name: offer for offer in offers}
    cells = tuple(
        _cell(name, by_name.get(name), threads, cores)
        for name in dict.fromkeys(names)
        for threads in sorted(set(request.threads))
    )
    if not cells:
        message = "benchmark: no runtime is installed on this board" if not names else "benchmark: threads is empty"
        raise ContractError(message)
    if len(cells) > MAX_CELLS:
        message = f"benchmark: {len(cells)} cells; at most {MAX_CELLS} at once"
        raise ContractError(message)
    return cells


def _cell(name: str, offer: RuntimeOffer | None, threads: int, cores: int) -> Cell:
    if offer is None:
        return Cell(runtime=None, num_threads=threads, refusal=f"{name[:80]} is not installed on this board")
    if threads > cores:
        # A cliff, not a slope: tflite-runtime takes 100 times as long with more threads than cores.
        return Cell(runtime=offer, num_threads=threads, refusal=f"{threads} threads, and this board has {cores} cores")
    return Cell(runtime=offer, num_threads=threads)


def _check_limits(request: BenchmarkRequest) -> None:
    limits = (
        ("request", len(request.request), 1, _MAX_REQUEST_ID, "characters"),
        ("warmup_runs", request.warmup_runs, 0, MAX_RUNS, ""),
        ("min_runs", request.min_runs, 1, MAX_RUNS, ""),
        ("min_seconds", request.min_seconds, 0, MAX_SECONDS, ""),
        ("max_seconds", request.max_seconds, 0.001, MAX_SECONDS, ""),
        ("min_seconds", request.min_seconds, 0, request.max_seconds, "(max_seconds)"),
        *(("threads", threads, 1, 64, "") for threads in request.threads),
    )
    for name, value, least, most, unit in limits:
        if not least <= value <= most:
            message = f"benchmark: {name} must be {least:g}..{most:g} {unit}".rstrip() + f", not {value:g}"
            raise ContractError(message)


async def run(
    request: BenchmarkRequest,
    *,
    folder: Path | None,
    inference: InferenceConfig,
    offers: tuple[RuntimeOffer, ...],
    cores: int,
    on_cell: Callable[[BenchmarkCell], None] = lambda _: None,
) -> BenchmarkReport:
    """Measure every cell of a request on the bundle in `folder`; errors become the report's or the cell's."""
    try:
        cells = plan(request, offers, cores)
        if folder is None:
            return refusal(request.request, "benchmark: no bundle serves on this board; deploy one first")
        manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    except (ContractError, OSError) as error:
        return refusal(request.request, str(error))
    measured = []
    for cell in cells:
        found = await _measure(cell, request, folder, inference)
        measured.append(found)
        on_cell(found)
    return BenchmarkReport(
        request=request.request, model_sha256=manifest.files[MODEL].sha256, cells=tuple(measured), error=None
    )


def refusal(request: str, error: str) -> BenchmarkReport:
    """Answer a request that is not carried out."""
    return BenchmarkReport(request=request[:_MAX_REQUEST_ID], model_sha256=None, cells=(), error=error)


async def _measure(cell: Cell, request: BenchmarkRequest, folder: Path, inference: InferenceConfig) -> BenchmarkCell:
    if cell.refusal is not None or cell.runtime is None:
        return BenchmarkCell(runtime=cell.runtime, num_threads=cell.num_threads, error=cell.refusal)
    spec = BenchmarkSpec(
        bundle=str(folder),
        inference=dataclasses.replace(inference, runtime=_known(cell.runtime.name), num_threads=cell.num_threads),
        warmup_runs=request.warmup_runs,
        min_runs=request.min_runs,
        min_seconds=request.min_seconds,
        max_seconds=request.max_seconds,
    )
    try:
        return await ask("benchmark", spec, BenchmarkCell, timeout_s=2 * request.max_seconds + _SLACK_S)
    except ProbeError as error:
        return BenchmarkCell(runtime=cell.runtime, num_threads=cell.num_threads, error=str(error))


def _known(name: str) -> Literal["tflite-runtime", "ai-edge-litert"]:
    return "tflite-runtime" if name == "tflite-runtime" else "ai-edge-litert"
