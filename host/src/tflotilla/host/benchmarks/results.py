"""What a benchmark found on all its boards, as one value and as one JSON file.

Rules it keeps: `from_json(to_json(run)) == run`; a file is written whole or not at all; each board's request stands in
it, so that a result can be asked for again. What it does NOT do: measure, compare, or show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.host.benchmarks.foreign import ForeignFigures
from tflotilla.host.models.delivery import deliver
from tflotilla.shared.contract import codec, errors
from tflotilla.shared.contract.benchmark import BenchmarkCell, BenchmarkRequest, Identity
from tflotilla.shared.contract.errors import ContractError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.errors import TflotillaError

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRun:
    """One model on one board: the cells that were measured, and what kept the rest from it.

    A board that lost its link has cells and an error. `identity` is None when it never answered.
    """

    board: str
    #: The bundle's name and version, or a foreign model's file name; empty when nobody knows.
    model: str
    request: BenchmarkRequest
    identity: Identity | None
    cells: tuple[BenchmarkCell, ...]
    error: str | None = None
    #: The error's class, for the exit code.
    error_kind: str | None = None

    @property
    def failure(self) -> TflotillaError | None:
        """The error as it was raised; None when there is none."""
        return None if self.error is None else errors.from_wire(self.error_kind or "", self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command's worth of measuring. `created` is Unix seconds by the host's clock."""

    id: str
    created: float
    boards: tuple[BoardRun, ...]
    #: What the user called it.
    name: str | None = None
    #: Who measured: ours, or a program whose output was imported.
    tool: Literal["tflotilla", "benchmark_model", "litert-benchmark"] = "tflotilla"
    #: What another program measured; such a run has no boards.
    foreign: tuple[ForeignFigures, ...] = ()
    schema: int = SCHEMA


def to_json(run: Run) -> bytes:
    """Serialize deterministically."""
    return codec.canonical_json(run) + b"\n"


def from_json(data: bytes, where: str) -> Run:
    """Parse. Raises InputError when it is no result, or one of a newer tflotilla."""
    try:
        document = codec.parse_json(data, where)
        if isinstance(document, dict) and isinstance(document.get("schema"), int) and document["schema"] > SCHEMA:
            raise InputError(
                f"{where} was written by a newer tflotilla (schema {document['schema']}); upgrade this one"
            )
        return codec.decode(Run, document, where)
    except ContractError as error:
        raise InputError(f"{where} is not a benchmark's result: {error}") from error


def read(path: Path) -> Run:
    """Read a result file. Raises InputError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    return from_json(data, str(path))


def write(run: Run, path: Path) -> None:
    """Write a result file, whole or not at all. Raises InputError."""
    deliver(to_json(run), path)
