"""The bridge into Home Assistant: announces each board as a device, and says which bundle is on its way to it.

Rules it keeps: what it says is retained, so that Home Assistant finds it whenever it starts, and said again when Home
Assistant or the broker comes back; only what changed is said; a board that leaves fleet.toml leaves Home Assistant.
What it does NOT do: repeat figures (entities read the boards' own topics), deploy.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from typing import TYPE_CHECKING

from tflotilla.host.dashboards.bridges import News, Option, Publication, Setting
from tflotilla.host.dashboards.home_assistant import discovery, updates, wanting
from tflotilla.host.rollouts.journal import database
from tflotilla.shared.contract import codec, messages, topics
from tflotilla.shared.contract.deployment import DeploymentStatus
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.host.telemetry.fleet_view import BoardView
    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.shared.contract.messages import Message

HELP = """Show every board in Home Assistant, by MQTT discovery: one device per board.

It needs Home Assistant 2024.11 or later with its MQTT integration on the fleet's broker. Latency, rate, temperature,
label and confidence come from the board itself; the bridge announces boards, and says which bundle is on its way. A
board that is taken out of fleet.toml is taken out there too. With --once it announces and ends.

Example: tflotilla bridge home-assistant

Exit codes: 0 stopped, or announced; 2 a prefix that is none; 3 fleet.toml; 10 the broker is down or refuses us."""
OPTIONS = (
    Option(
        name="discovery-prefix",
        default="homeassistant",
        metavar="TOPIC",
        help="The discovery prefix that Home Assistant's MQTT integration is set to.",
    ),
    Option(name="once", default=False, help="Announce, and end."),
)
_BIRTH = b"online"
#: What the broker retains arrives in that time after a connection was made; boards are announced with it, not twice.
_SETTLED_S = 1.0
_ONCE_S = 3.0
_MATTERS: tuple[topics.HostMatter, ...] = ("update", "image")
#: A thumbnail of the contract is a tenth of that.
_MOST_PICTURE_BYTES = 256 << 10
_JPEG = b"\xff\xd8\xff"
_AREA = "area"
_DELETED = b""


def open_bridge(setting: Setting) -> HomeAssistant:
    """Return the bridge. Raises UsageError: a prefix that can't be one."""
    prefix = str(setting.options["discovery-prefix"])
    if not prefix or prefix.strip("/") != prefix or any(each in prefix for each in "+# \0"):
        message = f"--discovery-prefix {prefix!r} is no topic; Home Assistant's default is homeassistant"
        raise UsageError(message)
    fleet = setting.fleet
    wants = wanting.Wants(lambda: database.of_fleet(fleet, tell=setting.tell), clock=time.monotonic, tell=setting.tell)
    return HomeAssistant(setting, prefix=prefix, once=bool(setting.options["once"]), wants=wants)


class HomeAssistant:
    """Implements `Bridge`."""

    def __init__(self, setting: Setting, *, prefix: str, once: bool, wants: wanting.Wants) -> None:
        """`wants` is asked which bundles boards should serve."""
        self._fleet = setting.fleet
        self._live = setting.live
        self._unknown = setting.unknown
        self._tell = setting.tell
        self._prefix = prefix
        self._once = once
        self._wants = wants
        self._shown: set[str] = set()
        #: Boards of which something is to be deleted.
        self._gone: set[str] = set()
        #: Boards whose device may have changed.
        self._due: set[str] = set()
        self._pictured: set[str] = set()
        self._windows: dict[str, float] = {}
        #: Topic → hash of what is retained there by us.
        self._said: dict[str, bytes] = {}
        self._settled_at: float | None = None
        self._settled = False

    @property
    def also_hears(self) -> tuple[str, ...]:
        """Home Assistant's birth, and what is retained of boards that may have gone since."""
        ours = tuple(topics.host_topic(self._fleet.name, "+", matter) for matter in _MATTERS)
        return (f"{self._prefix}/status", f"{self._prefix}/device/+/config", *ours)

    @property
    def done(self) -> bool:
        """Whether it has announced, if that is all it is to do."""
        return self._once and self._settled

    def step(self, news: News) -> Sequence[Publication]:
        """Return what to announce, to change and to take back."""
        if news.fleet is not self._fleet:
            self._fleet = news.fleet
            self._due |= self._shown
        if self._settled_at is None:
            self._settled_at = news.now + (_ONCE_S if self._once else _SETTLED_S)
        self._hear(news.messages)
        self._gone |= self._overhear(news.others) | self._leave()
        again = news.begins or self._is_born(news.others)
        if again:
            self._said.clear()
        self._due |= self._wants.look() & self._shown
        if not self._settled and news.now < self._settled_at:
            return ()
        if not self._settled:
            self._settled = True
            again = True
            self._tell(f"announcing {len(self._members())} boards below {self._prefix}/device/")
        joined = self._members() - self._shown
        self._shown |= joined
        due = self._shown if again else (self._due | joined) & self._shown
        gone = self._gone - self._shown
        self._due, self._gone = set(), set()
        taken_back = [each for board in sorted(gone) for each in self._take_back(board)]
        return [*taken_back, *(each for board in sorted(due) for each in self._say(board))]

    def close(self) -> None:
        """Close the journal; what is retained stays, so that Home Assistant shows boards without the bridge."""
        self._wants.close()

    def _members(self) -> set[str]:
        return {*self._fleet.boards, *(self._live.boards if self._unknown else ())}

    def _hear(self, heard: Iterable[Message[object]]) -> None:
        for message in heard:
            board = message.board
            match message.body:
                case messages.Metrics(window_s=window_s):
                    if self._windows.get(board) != window_s:
                        self._windows[board] = window_s
                        self._due.add(board)
                case messages.Thumbnail():
                    self._pictured.add(board)
                    self._due.add(board)
                case messages.State() | messages.Availability() | DeploymentStatus():
                    self._due.add(board)
                case _:
                    pass

    def _is_born(self, others: Iterable[Received]) -> bool:
        birth = f"{self._prefix}/status"
        return any(each.topic == birth and each.payload == _BIRTH for each in others)

    def _overhear(self, others: Iterable[Received]) -> set[str]:
        """Return the boards of which something is retained that shouldn't be."""
        found: set[str] = set()
        members = self._members()
        for each in others:
            if not each.payload:
                continue
            board, matter = self._subject(each.topic)
            if board is None:
                continue
            if board not in members:
                # With unknown boards shown it may come back any moment; who takes it out of fleet.toml takes it out.
                if not self._unknown:
                    found.add(board)
            elif matter == "image" and board not in self._pictured:
                # Of an earlier run: the picture is there, so is its entity.
                self._pictured.add(board)
                self._due.add(board)
        return found

    def _subject(self, topic: str) -> tuple[str | None, str]:
        """Return the board that a topic is about, and what about it."""
        head, tail = f"{self._prefix}/device/", "/config"
        if topic.startswith(head) and topic.endswith(tail):
            return discovery.board_of(self._fleet.name, topic[len(head) : -len(tail)]), "config"
        levels = topic.split("/")
        if len(levels) == 4 and levels[:2] == [topics.HOST_ROOT, self._fleet.name]:  # noqa: PLR2004 - root to matter
            return levels[2], levels[3]
        return None, ""

    def _leave(self) -> set[str]:
        gone = self._shown - self._members()
        for board in gone:
            self._shown.discard(board)
            self._pictured.discard(board)
            self._windows.pop(board, None)
        if gone:
            self._tell(f"taken out: {', '.join(sorted(gone))}")
        return gone

    def _take_back(self, board: str) -> list[Publication]:
        fleet = self._fleet.name
        places = [
            discovery.topic(self._prefix, fleet, board),
            *(topics.host_topic(fleet, board, matter) for matter in _MATTERS),
        ]
        for place in places:
            self._said.pop(place, None)
        return [Publication(topic=place, payload=_DELETED, retained=True) for place in places]

    def _say(self, board: str) -> list[Publication]:
        fleet = self._fleet.name
        view = self._live.boards.get(board)
        wanted = {
            discovery.topic(self._prefix, fleet, board): codec.canonical_json(discovery.config(self._of(board, view)))
        }
        update = updates.document(self._standing(board, view))
        if update is not None:
            wanted[topics.host_topic(fleet, board, "update")] = codec.canonical_json(update)
        picture = None if view is None else _picture(view.thumbnail)
        if picture is not None:
            wanted[topics.host_topic(fleet, board, "image")] = picture
        return [
            Publication(topic=place, payload=payload, retained=True)
            for place, payload in wanted.items()
            if self._is_new(place, payload)
        ]

    def _is_new(self, place: str, payload: bytes) -> bool:
        digest = hashlib.sha256(payload).digest()
        before, self._said[place] = self._said.get(place), digest
        return before != digest

    def _of(self, board: str, view: BoardView | None) -> discovery.Shown:
        entry = self._fleet.boards.get(board)
        state = None if view is None else view.state
        return discovery.Shown(
            fleet=self._fleet.name,
            board=board,
            hardware=None if state is None else state.facts.model or state.facts.arch,
            agent_version=None if state is None else state.agent_version,
            window_s=self._windows.get(board),
            area=None if entry is None else entry.labels.get(_AREA),
            pictures=board in self._pictured,
        )

    def _standing(self, board: str, view: BoardView | None) -> updates.Standing:
        state = None if view is None else view.state
        return updates.Standing(
            heard=state is not None,
            serving=None if state is None else state.serving,
            deployment=None if view is None else view.deployment,
            wanted=self._wants.boards.get(board),
        )


def _picture(thumbnail: messages.Thumbnail | None) -> bytes | None:
    """Return the JPEG of a thumbnail; None for what isn't one."""
    if thumbnail is None or len(thumbnail.jpeg) > 2 * _MOST_PICTURE_BYTES:
        return None
    try:
        picture = base64.b64decode(thumbnail.jpeg, validate=True)
    except (binascii.Error, ValueError):
        return None
    return picture if picture.startswith(_JPEG) and len(picture) <= _MOST_PICTURE_BYTES else None
