"""What happened in a rollout: the only way its state changes, and what the journal keeps.

`to_document` and `from_document` are inverse. An event whose kind is unknown (a newer tflotilla) raises ContractError:
going on without it would be guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.rollouts.evidence import Evidence
from tflotilla.host.rollouts.policy import Gate
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveBegan:
    """Its boards may be pushed to from now on."""

    wave: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A push was given to the executor. `deployment` is the same for every attempt of a round: boards know it again."""

    board: str
    deployment: str
    attempt: int
    #: What the bundle before did there, for the gates; None where there is none or nothing is known.
    baseline: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The board confirmed the bundle: it serves."""

    board: str
    changed: bool
    bytes_sent: int
    duration_s: float
    #: Digest of what served before; None where nothing did.
    before: str | None
    shadow: ShadowReport | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """It could not be reached, or is busy: queued until `again_at` (Unix seconds) or its birth message."""

    board: str
    error: str
    detail: str
    again_at: float
    #: A deployment may have begun there before the link broke, and go on without us.
    begun: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """A board that is queued said that it is there."""

    board: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The bundle did not come into service there; what served before serves."""

    board: str
    #: Name of the error's class.
    error: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakBegan:
    """Every board of the wave that could be reached has it; judged at `until` (Unix seconds)."""

    wave: int
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate on one board: `figure` in words with its limit. `value` and `limit` are the same as numbers."""

    gate: Gate
    board: str
    ok: bool
    figure: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A wave, or boards by themselves (`wave` is None: as soon as each has soaked), held against the gates.

    `results` has every gate that failed, and of those that held the ones closest to their limit. `misbehaved` are
    boards that broke a gate: they are brought back whatever becomes of the wave.
    """

    wave: int | None
    ok: bool
    boards: tuple[str, ...]
    misbehaved: tuple[str, ...]
    results: tuple[GateResult, ...]
    #: One line: what the verdict is, and which gate, boards and figures made it.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """Too many failed: nothing more is pushed; `undo` says that the waves done are brought back."""

    reason: str
    undo: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoClaimed:
    """Bringing the bundle before back was given to the executor."""

    board: str
    deployment: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What served before serves again; empty `detail` or what is to be known about it."""

    board: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoMissed:
    """It could not be reached; tried again at `again_at`."""

    board: str
    error: str
    detail: str
    again_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoFailed:
    """It can't be brought back: there was nothing before, say. A person must look at it."""

    board: str
    error: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A person lets the wave begin that waits for one."""

    wave: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A person stops it: what is under way is finished, nothing new begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """It goes on after a pause, or somebody conducts it anew: claims of the one before are void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """A person ends it: boards that have the bundle keep it, no other gets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackAsked:
    """A person wants every board of it brought back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """A person wants these boards, which failed, tried once more; a rollout that halted goes on."""

    boards: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """A newer rollout takes these boards, which were still queued."""

    boards: tuple[str, ...]
    by_rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Nothing is left to do."""


Event = (
    WaveBegan
    | Claimed
    | Deployed
    | Missed
    | Born
    | Failed
    | SoakBegan
    | Judged
    | Halted
    | UndoClaimed
    | Undone
    | UndoMissed
    | UndoFailed
    | Approved
    | Paused
    | Resumed
    | Aborted
    | RollbackAsked
    | Retried
    | Superseded
    | Finished
)
_KINDS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}


def to_document(event: Event) -> dict[str, Any]:
    """Return what the journal writes: the event's fields, and its class as `kind`."""
    return {"kind": type(event).__name__, **codec.encode(event)}


def from_document(document: Mapping[str, Any], where: str) -> Event:
    """Read it back. Raises ContractError."""
    kind = _KINDS.get(str(document.get("kind")))
    if kind is None:
        message = f"{where}: {str(document.get('kind'))[:40]!r} is no event this version knows; update tflotilla"
        raise ContractError(message)
    event: Event = codec.decode(kind, dict(document), where)
    return event
