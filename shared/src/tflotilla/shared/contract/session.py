"""What host and board say to each other over one SSH channel: the only authority to change a board.

The host runs `tflotilla-agent session` on the board and speaks on its stdin; the board answers on its stdout.
A frame is one line of JSON, ended by a newline; at most `MAX_FRAME_BYTES`. The board speaks first (`Hello`), then
each `Request` gets `Reply` frames up to the one with `done=True`. A frame with `error` set is always the last.

    hello                                        who the board is, what serves
    offer      bundle, or samples' sha256      → present, current             nothing is sent for what is there
    manifest   data + signature (base64)       → missing blobs with offsets   signature and release are checked first
    blob       sha256, size, offset, base?,    then chunks: a line with the byte count, the bytes (one zlib stream
               pieces?                           over all chunks), a line "0"  → stored
    deploy     bundle, deployment, inference?, → one reply per DeploymentStatus
               shadow?
    rollback   deployment, bundle?             → one reply per DeploymentStatus
    samples    sha256, size                    then chunks as for a blob → stored; deleted after the benchmark
    benchmark  benchmark                       → one reply per BenchmarkReport
    state                                      → the State body of `messages`
    bye                                        ends the session

Rules: a blob is visible only under its verified digest; an interrupted one stays in `incoming/` and goes on where it
broke. An `offer` of a bundle that serves already changes nothing on the board's disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.board import BoardFacts, ServedBundle
from tflotilla.shared.contract.deployment import DeploymentStatus

if TYPE_CHECKING:
    from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest  # noqa: TC004 - see below
    from tflotilla.shared.contract.messages import State  # noqa: TC004 - see below
else:

    def __getattr__(name: str) -> object:
        """Import what few frames hold when one does: a board's session has to start at once (see `codec.hints`)."""
        # First of all: the import system itself asks for `__path__`.
        if name not in ("BenchmarkReport", "BenchmarkRequest", "State"):
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        from tflotilla.shared.contract import messages

        return getattr(messages, name)


SCHEMA = 1
#: A benchmark's samples travel without a signature: they are looked at, never run, and bounded.
MAX_SAMPLES_BYTES = 64 << 20
MAX_FRAME_BYTES = 4 << 20
CHUNK_BYTES = 256 << 10
Verb = Literal["offer", "manifest", "blob", "deploy", "rollback", "samples", "benchmark", "state", "bye"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The board's first frame."""

    schema: int
    agent_version: str
    board: str
    fleet: str
    facts: BoardFacts
    #: Whether the supervisor answers; without it nothing can be deployed.
    running: bool
    serving: ServedBundle | None = None
    previous: ServedBundle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`size` bytes of a blob from `at` on: those of its base from `base_at` on plus the stream's, modulo 256."""

    at: int
    base_at: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the host asks; which fields are set depends on the verb."""

    verb: Verb
    #: offer, deploy: the one meant. rollback: the one to be left; where another one serves, nothing is done.
    bundle: str | None = None
    deployment: str | None = None
    #: deploy: how the bundle is to run, as tuning found out; None is what agent.toml says.
    inference: InferenceConfig | None = None
    benchmark: BenchmarkRequest | None = None
    #: manifest: a bundle that is only to be measured may be older than what serves; None is to be deployed.
    purpose: Literal["benchmark"] | None = None
    #: manifest: the bytes of manifest.json and manifest.json.sig, base64.
    manifest: str | None = None
    signature: str | None = None
    #: blob
    sha256: str | None = None
    size: int | None = None
    offset: int | None = None
    #: blob: a blob that the board has, and which of its bytes are added to the stream's (in order of `at`, apart).
    base: str | None = None
    pieces: tuple[Piece, ...] | None = None
    #: deploy: try the candidate beside the bundle that serves on so many inputs of the board's own source.
    shadow: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingBlob:
    """A file the board lacks, and how much of it is in `incoming/` already."""

    sha256: str
    size: int
    offset: int
    #: Blobs that are here under the same name in other bundles: what a difference can be taken against.
    bases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the board answers."""

    done: bool = True
    #: Set together: `errors.to_wire`.
    error: str | None = None
    message: str | None = None
    #: offer
    present: bool | None = None
    current: bool | None = None
    #: manifest
    missing: tuple[MissingBlob, ...] | None = None
    #: blob
    stored: str | None = None
    #: deploy, rollback
    status: DeploymentStatus | None = None
    #: benchmark
    benchmark: BenchmarkReport | None = None
    #: state
    state: State | None = None


def to_line(frame: Hello | Request | Reply) -> bytes:
    """Serialize one frame, without the keys that are None: frames are small on purpose."""
    document: dict[str, Any] = codec.encode(frame)
    return codec.canonical_json({k: v for k, v in document.items() if v is not None}) + b"\n"


def hello_from_line(line: bytes) -> Hello:
    """Parse the board's first frame. Raises ContractError."""
    return codec.decode(Hello, codec.parse_json(line, "session hello"), "session hello")


def request_from_line(line: bytes) -> Request:
    """Parse a request. Raises ContractError."""
    return codec.decode(Request, codec.parse_json(line, "session request"), "session request")


def reply_from_line(line: bytes) -> Reply:
    """Parse a reply. Raises ContractError."""
    return codec.decode(Reply, codec.parse_json(line, "session reply"), "session reply")
