"""The host's side of changing a board's agent for a new one: follow what the board does, and say how it ended.

Rules it keeps: only the board decides whether its new agent stays, so a host that dies or loses the line changes
nothing; who comes back hears how it ended.
What it does NOT do: stage anything (`bootstrap`), change anything (`onboard/upgrade.py`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tflotilla.host.fleet.agents import onboard
from tflotilla.shared.contract import codec, layout
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.fleet.lines.ssh import Link

DEFAULT_WINDOW_S = 60.0
_FRAME_BYTES = 64 << 10
#: It says every 5 s that it goes on.
_FRAME_TIMEOUT_S = 60.0
_TEXTS = {
    "switching": "changing the agent",
    "watching": "waiting for the new agent to report; else the old one comes back",
    "undoing": "the new agent does not report; putting the old one back",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an upgrade is, in the words of the board."""

    id: str
    state: Literal["staged", "switching", "watching", "undoing", "confirmed", "undone", "lost"]
    reason: str | None = None
    old_runs: bool | None = None
    window_s: float | None = None

    @property
    def over(self) -> bool:
        """Whether it is decided."""
        return self.state in ("confirmed", "undone", "lost")


def programs(python: str) -> dict[str, bytes]:
    """Return what carries upgrades out on a board, by the names that `receive` knows."""
    script = f"""\
#!/bin/sh
# Changes tflotilla's agent for another, and back; written by `tflotilla board bootstrap`.
exec {shlex.quote(python)} -I -S "$0.py" "$@"
"""
    return {"upgrade": script.encode(), "upgrade.py": onboard.script("upgrade")}


def follow(link: Link, home: str, wanted: str, on_step: Callable[[str], None]) -> Progress:
    """Begin what is staged under an id, or watch what goes on already; return how it ended, whichever it was.

    Raises:
        UnreachableError: the line broke; the board goes on.
        BoardError: the board can't say.

    """
    command = f"exec {shlex.join((f'{home}/{layout.UPGRADER}', 'follow', home, wanted))}"
    progress: Progress | None = None
    with link.open(command) as duplex:
        while progress is None or not progress.over:
            line = duplex.readline(timeout_s=_FRAME_TIMEOUT_S, limit_bytes=_FRAME_BYTES)
            if not line.endswith(b"\n"):
                done = duplex.finish(timeout_s=_FRAME_TIMEOUT_S)
                said = " ".join(done.stderr.decode(errors="replace").split())[-200:] or "it said nothing"
                message = f"{link.board}: the upgrade can't be followed ({said}); see upgrade/log in the agent's home"
                raise BoardError(message)
            if line.startswith(b"{"):
                before, progress = progress, parse(codec.parse_json(line, link.board), link.board)
                if progress.state in _TEXTS and (before is None or before.state != progress.state):
                    on_step(_TEXTS[progress.state])
    return progress


def parse(document: Any, board: str) -> Progress:  # noqa: ANN401 - JSON
    """Read one frame of a board. Raises ContractError."""
    return codec.decode(Progress, document, f"{board}: upgrade")


def judge(progress: Progress, board: str) -> None:
    """Raise BoardError unless the new agent stays."""
    if progress.state == "confirmed":
        return
    if progress.state == "lost":
        message = f"{board}: what was staged for its agent is gone; run `tflotilla board bootstrap {board}` again"
        raise BoardError(message)
    reason = "".join(char if char.isprintable() else repr(char)[1:-1] for char in progress.reason or "no reason said")
    old = "the old one runs again" if progress.old_runs else "the old one is back, and does not answer either"
    message = f"{board}: the new agent did not report within {progress.window_s or 0:g} s: {reason}; {old}"
    raise BoardError(message)
