"""MQTT topics: `tflotilla/<fleet>/<board>/<channel>`, and `…/command/<name>` towards the board."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from tflotilla.shared.contract.board import check_board_id

ROOT = "tflotilla"
#: What hosts say for other tools to show: `tflotilla-host/<fleet>/<board>/<matter>`. Boards neither read nor write it.
HOST_ROOT = "tflotilla-host"
Channel = Literal[
    "availability",
    "state",
    "model",
    "deployment",
    "metrics",
    "predictions",
    "thumbnail",
    "flat",
    "benchmark",
    "event",
    "ack",
]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
#: Retained: who connects later still learns them.
RETAINED: frozenset[str] = frozenset({"availability", "state", "model", "deployment"})
#: What a board says of the present: numbered 0, not queued, not stored.
MOMENTARY: frozenset[str] = frozenset({"availability", "state", "model", "thumbnail", "flat"})
#: `update`: a bundle that is on its way, for Home Assistant; `image`: the last thumbnail as JPEG; `alarm`: what fires.
HostMatter = Literal["update", "image", "alarm"]
Command = Literal["benchmark", "state"]
COMMANDS: tuple[Command, ...] = get_args(Command)
_FLEET = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_fleet(text: str) -> str:
    """Return `text` if it can be a topic level. Raises ValueError."""
    if not _FLEET.fullmatch(text):
        message = f"fleet name {text[:80]!r}: use lower-case letters, digits and '-', at most 63"
        raise ValueError(message)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A parsed topic; `parse(topic(a)) == a`."""

    fleet: str
    board: str
    channel: str


def topic(fleet: str, board: str, channel: Channel) -> str:
    """Return the topic of a board's channel."""
    return f"{ROOT}/{fleet}/{board}/{channel}"


def command(fleet: str, board: str, name: Command) -> str:
    """Return the topic on which a board takes a request."""
    return f"{ROOT}/{fleet}/{board}/command/{name}"


def every_board(fleet: str) -> tuple[str, ...]:
    """Return the subscriptions that see all a fleet reports, and none of what is sent to it.

    Without `flat`, which says nothing that `metrics` doesn't.
    """
    return tuple(f"{ROOT}/{fleet}/+/{channel}" for channel in CHANNELS if channel not in {"ack", "flat"})


def host_topic(fleet: str, board: str, matter: HostMatter) -> str:
    """Return the topic on which hosts tell other tools of a board."""
    return f"{HOST_ROOT}/{fleet}/{board}/{matter}"


def parse(text: str) -> Address | None:
    """Return the address of a board's channel or command, None for a topic that is not ours."""
    levels = text.split("/")
    if len(levels) < 4 or levels[0] != ROOT:  # noqa: PLR2004 - root, fleet, board, channel
        return None
    channel = "/".join(levels[3:])
    if channel not in CHANNELS and channel not in {f"command/{name}" for name in COMMANDS}:
        return None
    try:
        return Address(fleet=check_fleet(levels[1]), board=check_board_id(levels[2]), channel=channel)
    except ValueError:
        return None
