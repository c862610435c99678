"""What tuning found, in `.tflotilla/tuned/` beside fleet.toml: a file per model, type of board, runtime and kernel.

Rules it keeps: a record counts on a board only where machine, architecture, cores, runtime version and kernel are those
it was found with, since each of them may make something else the fastest; a file is replaced whole or not at all; one
that can't be read is no record, and no reason not to deploy.
What it does NOT do: search (`benchmarks.tuning`), or run anything: the board probes a record like any other choice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.models.delivery import deliver
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import Configuration
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ContractError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tflotilla.shared.contract.board import BoardFacts

SCHEMA = 1
FOLDER = "tuned"
#: A board's type is the same over revisions of its circuit board: `Raspberry Pi 4 Model B Rev 1.4`.
_REVISION = re.compile(r"\s+Rev\s+[\d.]+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BoardType:
    """What boards must have in common to run a model alike. Memory and disk are not among it."""

    #: The device tree's name without its revision; empty where there is none (a PC).
    machine: str
    arch: str
    cores: int

    def __str__(self) -> str:
        """`Raspberry Pi 4 Model B, aarch64, 4 cores`."""
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        return ", ".join(filter(None, (self.machine, self.arch, cores)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The fastest way found to run one model with one runtime on one type of board."""

    model_sha256: str
    #: The bundle it was tuned in; others may hold the same model.
    bundle: str
    title: str
    board_type: BoardType
    runtime: RuntimeOffer
    kernel: str
    configuration: Configuration
    #: What it is the best by (`p99`), and its value: nanoseconds, the smaller the better.
    objective: str
    value_ns: float
    #: Whether it is the best of all runtimes that were tried, and not only of its own.
    pick: bool
    #: Timed runs behind that value, and whether they may be quoted.
    runs: int
    valid: bool
    #: Configurations that were tried, the board they were tried on, and the order's seed.
    tried: int
    board: str
    seed: int
    #: Unix seconds by the host's clock; records of one search have the same.
    created: float
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a configuration of another runtime than the one it was found with."""
        if self.configuration.inference.runtime != self.runtime.name:
            message = f"configuration must be of {self.runtime.name}, not {self.configuration.inference.runtime}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """How a board is to be told to run a bundle."""

    #: None is what its agent.toml says.
    inference: InferenceConfig | None
    #: One sentence for people; empty when there is nothing to say.
    said: str = ""
    #: Also where the bundle serves already, in whatever way.
    insist: bool = False


def type_of(facts: BoardFacts) -> BoardType:
    """Return a board's type."""
    return BoardType(machine=_REVISION.sub("", facts.model or ""), arch=facts.arch, cores=facts.cores)


def save(folder: Path, records: Sequence[Record]) -> tuple[Path, ...]:
    """Keep records in a fleet's state folder, in place of those of the same key. Raises InputError."""
    place = folder / FOLDER
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place} can't be made: {error.strerror or error}") from error
    paths = []
    for record in records:
        path = place / _file(record)
        deliver(codec.canonical_json(record) + b"\n", path)
        paths.append(path)
    return tuple(paths)


def load(
    folder: Path, model_sha256: str | None = None, *, tell: Callable[[str], None] = lambda _text: None
) -> tuple[Record, ...]:
    """Return the records of a model (None: of all), of the latest search first, and there the pick first.

    `tell` hears of each file that can't be read as one, whichever model it was of.
    """
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            record = codec.decode(Record, codec.parse_json(path.read_bytes(), str(path)), str(path))
        except OSError as error:
            tell(f"{path} does not count: {error.strerror or error}")
        except ContractError as error:
            tell(f"{error}; so it does not count: tune again, or remove it")
        else:
            if record.schema == SCHEMA and model_sha256 in (None, record.model_sha256):
                found.append(record)
    return tuple(sorted(found, key=lambda record: (-record.created, not record.pick, record.value_ns)))


def stale(record: Record, facts: BoardFacts) -> str | None:
    """Say why a record of this board's type does not count on it any more; None when it does."""
    if record.runtime not in facts.runtimes:
        now = next((str(offer) for offer in facts.runtimes if offer.name == record.runtime.name), "not installed")
        return f"found with {record.runtime}, now it is {now}"
    if record.kernel != facts.kernel:
        return f"found on kernel {record.kernel}, now it is {facts.kernel}"
    return None


def advise(records: Sequence[Record], facts: BoardFacts, board: str, *, runtime: str = "auto") -> Advice:
    """Say how a board is to run a model by what tuning found, and why not so where that does not count.

    Args:
        records: of the model, in `load`'s order.
        facts: fresh ones.
        board: its name, for the words.
        runtime: what its agent.toml fixes; records of another are passed over.

    """
    mine = [
        record for record in records if record.board_type == type_of(facts) and runtime in ("auto", record.runtime.name)
    ]
    for record in mine:
        if _fault(record, facts, runtime) is None:
            doubt = "" if record.valid else " (its figures were INVALID)"
            said = f"as tuned on {record.board}: {describe(record)}{doubt}"
            return Advice(inference=record.configuration.inference, said=said, insist=True)
    if mine:
        reason = _fault(mine[0], facts, runtime)
        return Advice(inference=None, said=f"not as tuned: {reason}; `tflotilla tune {board}` does it anew")
    return Advice(inference=None)


def _fault(record: Record, facts: BoardFacts, runtime: str) -> str | None:
    """Say why a record of a board's type is not to be applied there; None when it is."""
    if (reason := stale(record, facts)) is not None:
        return reason
    if record.configuration.batch != 1:
        return "it runs several samples at once, and serving runs one"
    others = sorted({offer.name for offer in facts.runtimes} - {record.runtime.name})
    if not record.pick and runtime == "auto" and others:
        # Another runtime was faster then, so without tuning the board might choose better.
        return f"what still holds is the best with {record.runtime.name} only, and {', '.join(others)} is there too"
    return None


def describe(record: Record) -> str:
    """Return a record's configuration in words."""
    return f"{record.runtime}, {describe_inference(record.configuration.inference)}"


def describe_inference(inference: InferenceConfig) -> str:
    """Return a configuration in words, without its runtime."""
    parts = [f"{inference.num_threads} thread{'' if inference.num_threads == 1 else 's'}"]
    parts.append(f"XNNPACK {'on' if inference.xnnpack else 'off'}")
    if inference.delegate is not None:
        parts.append(f"delegate {inference.delegate.library}")
    if inference.affinity:
        parts.append(f"processor {','.join(map(str, inference.affinity))}")
    return ", ".join(parts)


def _file(record: Record) -> str:
    where = codec.canonical_json([codec.encode(record.board_type), record.kernel, record.runtime.version])
    return f"{record.model_sha256[:16]}-{digest.of_bytes(where)[:12]}-{record.runtime.name}.json"
