"""A rollout as it was planned: values only, as `rollout plan` prints them and the journal keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tflotilla.host.rollouts.policy import Policy

#: ready: it will get the bundle. current: serves it already. incompatible: left out, `reason` says why.
#: offline: didn't answer; queued until it does. unknown: never asked, its facts are judged when it is reached.
Disposition = Literal["ready", "current", "incompatible", "offline", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBoard:
    """What would happen to one board, and why."""

    board: str
    disposition: Disposition
    reason: str = ""
    #: Digest and title of what serves there as far as is known.
    serving: str | None = None
    serving_title: str | None = None
    #: Its model's name, where known; gates compare only what is of one model.
    serving_model: str | None = None
    #: Bytes on the line as estimated; None where nobody knows what the board has.
    send_bytes: int | None = None
    #: Seconds from connecting to `succeeded`, estimated.
    expected_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Boards that get the bundle together. `size` is how the user wrote it: `1`, `10%`, `site=lab`."""

    size: str
    boards: tuple[str, ...]
    #: A person must approve before it begins.
    approval: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a rollout needs to know; it doesn't change once it has begun."""

    #: `digits-2.0.0-7f3a`: title and four hex digits, unique in a journal.
    rollout: str
    fleet: str
    #: Digest, title and release of the bundle, and where its copy lies, relative to fleet.toml's folder.
    bundle: str
    title: str
    release: int
    bundle_file: str
    selector: str
    created: float
    #: `user@host` of who planned it.
    by: str
    boards: tuple[PlannedBoard, ...]
    #: Boards that are left out (incompatible) or done (current) are in no wave.
    waves: tuple[Wave, ...]
    policy: Policy
    #: The name of the bundle's model; empty where it wasn't noted.
    model: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError when a wave names a board that was not planned, or a board twice."""
        planned = {board.board for board in self.boards}
        seen: set[str] = set()
        for wave in self.waves:
            for board in wave.boards:
                if board not in planned or board in seen:
                    message = f"board {board!r} stands in the waves and is not planned, or stands there twice"
                    raise ValueError(message)
                seen.add(board)
