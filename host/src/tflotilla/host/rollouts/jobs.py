"""Pushes and undos as values, and the port of whoever does them.

A job is idempotent, keyed by (rollout, board, deployment): done twice it changes nothing, because a board that is asked
again with a deployment's id tells that one's story. So workers may die, and a job may be given away again.
What it does NOT do: connect (`pushing` does), or decide which job is next (`engine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from tflotilla.shared.contract.deployment import ShadowReport

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One board's push or undo; everything a worker on another machine needs, as plain values."""

    kind: Literal["push", "undo"]
    rollout: str
    board: str
    deployment: str
    #: Digest of the bundle: to be deployed, or to be left.
    bundle: str
    #: Where its file lies, relative to fleet.toml's folder.
    bundle_file: str
    #: fleet.toml, absolute.
    fleet_file: str
    shadow: int = 0
    #: Bytes per second that all pushes of one worker share; None is without limit.
    limit_rate: float | None = None

    @property
    def key(self) -> str:
        """What makes two of them the same job, on whatever machine."""
        return f"{self.rollout}:{self.board}:{self.deployment}:{self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What became of a job: with `error` (a class name of `contract.errors`) it failed, and `detail` is one line."""

    job: Job
    error: str | None = None
    detail: str = ""
    changed: bool = False
    bytes_sent: int = 0
    duration_s: float = 0.0
    #: Digest of what served before a push; of what serves after an undo.
    before: str | None = None
    shadow: ShadowReport | None = None
    #: False where it is sure that the board was asked for nothing: it could not even be connected to.
    begun: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """What a job is doing, for people to see; may get lost."""

    board: str
    text: str = ""
    sent: int | None = None
    total: int | None = None


class Executor(Protocol):
    """Does jobs, `capacity` at once; used by one thread."""

    @property
    def capacity(self) -> int:
        """How many jobs may be under way."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a job, or have it begun. Raises TflotillaError when nobody can take it."""
        ...

    def results(self, *, timeout_s: float) -> Sequence[JobResult]:
        """Wait until a job is done, at most that long, and return all that are; each result once."""
        ...

    def progress(self) -> Sequence[JobProgress]:
        """Return what was told since this was last asked."""
        ...

    def close(self) -> None:
        """Begin nothing more and return soon; jobs under way may be left to themselves, boards finish them."""
        ...
