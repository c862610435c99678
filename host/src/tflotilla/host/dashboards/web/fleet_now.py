"""The fleet as it is now, for all browsers at once: what boards say goes in, what pages show comes out.

    now = FleetNow("home", {"pi-7": {"room": "kitchen"}})
    now.hear(broker.receive(timeout_s=0.25))        # one thread
    changes = now.changes()                         # another

Rules it keeps: whoever hears and whoever shows may be two threads; memory is bounded by the number of boards; a message
counts once. What it does NOT do: connect, or send anything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.web import board_page, model_page, tiles
from tflotilla.host.dashboards.web.series import Series
from tflotilla.host.dashboards.web.tiles import Tile
from tflotilla.host.telemetry import presence
from tflotilla.host.telemetry.live import Live
from tflotilla.host.telemetry.presence import Listening
from tflotilla.host.telemetry.totals import Totals
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.benchmark import BenchmarkReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.shared.contract.messages import Message, ModelCard

_LAST_EVENTS = 20
#: What a page that looks at a board gets in a quarter of a second, at most; more would only be scrolled away.
_MOST_NEWS = 50
#: Bundles that are told apart, over the whole fleet.
_MOST_BUNDLES = 64
#: Boards that were looked at last.
_MOST_PASTS = 200
_MODELS_EVERY_S = 5.0
#: A board's clock that says it was longer ago is wrong: it has none that survives a reboot, say.
_OLDEST_S = 366 * 86400.0
#: What is longer no agent sends, and the page doesn't keep: a thumbnail is 128 pixels wide, a card names all labels.
_MOST_BYTES = {"thumbnail": 200_000, "model": 1 << 20, "state": 1 << 16, "event": 1 << 16, "deployment": 1 << 16}


@dataclass(slots=True)
class _News:
    """What a board said that those who look at it don't know yet."""

    watchers: int = 0
    points: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST_NEWS))
    predictions: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST_NEWS))
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST_NEWS))
    thumbnail: dict[str, Any] | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What became of the fleet since the last time."""

    tiles: list[Tile]
    gone: list[str]
    #: Connected, and why not.
    source: tuple[bool, str | None]


class FleetNow:
    """See above. `hear` and `connection` are called by the thread that listens, all else by the one that shows."""

    def __init__(
        self, fleet: str, boards: Mapping[str, Mapping[str, str]], *, clock: Callable[[], float] = time.time
    ) -> None:
        """`boards`: those of the inventory, with their labels."""
        self.fleet = fleet
        self._clock = clock
        self._labels: Mapping[str, Mapping[str, str]] = dict(boards)
        self._live = Live(fleet, known=boards.keys())
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}
        self._events: dict[str, deque[dict[str, Any]]] = {}
        self._series: dict[str, Series] = {}
        self._cards: dict[str, ModelCard] = {}
        self._benchmarks: dict[str, dict[str, Any]] = {}
        self._oversized = 0
        self._past: dict[str, list[dict[str, Any]]] = {}
        self._models: tuple[float, dict[str, Any] | None] = (0.0, None)
        self._adding = threading.Lock()
        self._dirty: set[str] = set(boards)
        self._tiles: dict[str, Tile] = {}
        self._gone: list[str] = []
        self._news: dict[str, _News] = {}
        self._since = clock()
        self._source: tuple[bool, str | None] = (False, "connecting")
        self._hearing_since = self._since
        self._deaf_since: float | None = self._since

    # What the listening thread calls.

    def connection(self, *, connected: bool, reason: str | None = None) -> None:
        """Say whether we listen now, and why not."""
        with self._lock:
            was, _ = self._source
            self._source = (connected, None if connected else reason)
            if connected and not was:
                self._hearing_since, self._deaf_since = self._clock(), None
            elif was and not connected:
                self._deaf_since = self._clock()

    def hear(self, received: Iterable[Received]) -> None:
        """Take what arrived."""
        for each in received:
            if len(each.payload) > _MOST_BYTES.get(each.topic.rpartition("/")[2], len(each.payload)):
                self._oversized += 1
                continue
            # One at a time: whoever shows must not wait for a flood.
            with self._lock:
                for message in self._live.hear((each,)):
                    self._take(message, each)

    def _take(self, message: Message[Any], received: Received) -> None:
        board = message.board
        # The broker keeps retained messages for days: when they came to us says nothing about the board.
        at = message.time if received.retained else received.at
        if received.at - _OLDEST_S < at <= received.at:
            self._seen[board] = max(self._seen.get(board, 0.0), at)
        self._dirty.add(board)
        news = self._news.get(board)
        match message.body:
            case messages.Metrics():
                series = self._series.setdefault(board, Series())
                drawn = series.add(message, received.at)
                if news is not None:
                    if drawn:
                        news.points.append(series.last())
                    news.predictions.extend(board_page.prediction(each) for each in message.body.sample)
            case messages.Predictions() if news is not None:
                news.predictions.extend(board_page.prediction(each) for each in message.body.results[-_MOST_NEWS:])
            case messages.Thumbnail() if news is not None:
                news.thumbnail = board_page.thumbnail(message.body)
            case messages.Event():
                said = board_page.event(message.body, message.time)
                self._events.setdefault(board, deque(maxlen=_LAST_EVENTS)).appendleft(said)
                if news is not None:
                    news.events.append(said)
            case BenchmarkReport():
                self._benchmarks[board] = board_page.benchmark_of(message.body, message.time)
            case messages.ModelCard():
                self._cards.pop(message.body.digest, None)
                self._cards[message.body.digest] = message.body
                while len(self._cards) > _MOST_BUNDLES:
                    del self._cards[next(iter(self._cards))]
            case _:
                pass
        if news is not None:
            news.changed = True

    # What the showing thread calls.

    def know(self, boards: Mapping[str, Mapping[str, str]]) -> None:
        """Take the boards of an inventory that was changed; those that were taken out are forgotten."""
        with self._lock:
            for board in self._labels.keys() - boards.keys():
                self._forget(board)
            self._dirty.update(board for board, labels in boards.items() if self._labels.get(board) != labels)
            self._labels = dict(boards)
            self._live.know(boards.keys())

    def _forget(self, board: str) -> None:
        self._live.forget(board)
        for kept in (self._seen, self._events, self._series, self._tiles, self._benchmarks):
            kept.pop(board, None)
        self._dirty.discard(board)
        self._gone.append(board)

    def changes(self) -> Changes:
        """Draw the tiles anew of boards that said something, or fell silent; return those that look otherwise."""
        with self._lock:
            listening = self._listening()
            views = dict(self._live.boards)
            seen = dict(self._seen)
            dirty, self._dirty = self._dirty, set()
            gone, self._gone = self._gone, []
            source = self._source
        for board, shown in self._tiles.items():
            view = views.get(board)
            # Falling silent is the one thing that happens without a message.
            if view is not None and (shown["status"] == "silent") != (
                shown["status"] in ("online", "unknown", "silent") and presence.is_silent(view, listening)
            ):
                dirty.add(board)
        usual = tiles.usual(self._tiles.values())
        changed = []
        for board in dirty:
            view = views.get(board)
            known = board in self._labels
            if view is None and not known:
                continue
            serving = None if view is None or view.state is None else view.state.serving
            drawn = tiles.tile(
                board,
                self._labels.get(board, {}),
                view,
                seen=seen.get(board),
                listening=listening,
                usual_p99_ms=None if serving is None else usual.get(serving.digest),
                known=known,
            )
            if self._tiles.get(board) != drawn:
                self._tiles[board] = drawn
                changed.append(drawn)
        return Changes(tiles=changed, gone=gone, source=source)

    def fleet_document(self) -> dict[str, Any]:
        """Return all tiles as `changes` drew them last."""
        return {
            "fleet": self.fleet,
            "now": self._clock(),
            "listening_since": self._since,
            "connected": self._source[0],
            "reason": self._source[1],
            "tiles": list(self._tiles.values()),
            "garbage": self.garbage,
        }

    def knows(self, board: str) -> bool:
        """Return whether the inventory, or a board itself, named it."""
        return board in self._tiles

    def board_document(self, board: str, *, series: bool = True) -> dict[str, Any] | None:
        """Return all that is known of a board; None for one that neither the inventory nor anybody else named."""
        shown = self._tiles.get(board)
        if shown is None:
            return None
        with self._lock:
            view = self._live.boards.get(board)
            digest = shown["digest"]
            return board_page.document(
                shown,
                view,
                events=list(self._events.get(board, ())),
                totals=self._live.totals.get(board, {}).get(digest or ""),
                card=self._card(view, digest),
                series=self._series.get(board, Series()) if series else None,
                past=self._past.get(board, ()),
                benchmark=self._benchmarks.get(board),
            )

    def remember(self, board: str, deployments: list[dict[str, Any]]) -> None:
        """Keep what others know of a board's earlier deployments, for its document."""
        with self._lock:
            self._past[board] = deployments
            while len(self._past) > _MOST_PASTS:
                del self._past[next(iter(self._past))]

    def models_document(self) -> dict[str, Any]:
        """Return every bundle that serves or served since we listen, over the whole fleet; for a thread of its own.

        Adding up a thousand boards takes a while: it is done at most every few seconds.
        """
        with self._adding:
            made_at, kept = self._models
            if kept is None or time.monotonic() - made_at > _MODELS_EVERY_S:
                kept = model_page.document(dict(self._cards), self._over_the_fleet(), list(self._tiles.values()))
                self._models = (time.monotonic(), kept)
            return kept

    def _over_the_fleet(self) -> dict[str, Totals]:
        summed: dict[str, Totals] = {}
        for board in list(self._live.totals):
            # One at a time: messages go on coming in.
            with self._lock:
                for digest, totals in self._live.totals.get(board, {}).items():
                    if digest in summed or len(summed) < _MOST_BUNDLES:
                        summed.setdefault(digest, Totals()).merge(totals)
        summed.pop("", None)
        return summed

    def watch(self, board: str) -> None:
        """Begin to keep what a board says, for `news`."""
        with self._lock:
            self._news.setdefault(board, _News()).watchers += 1

    def unwatch(self, board: str) -> None:
        """Undo one `watch`."""
        with self._lock:
            self._news[board].watchers -= 1
            if self._news[board].watchers == 0:
                del self._news[board]

    def news(self, board: str) -> dict[str, Any] | None:
        """Return what a watched board said since the last time; None for nothing."""
        with self._lock:
            news = self._news.get(board)
            if news is None or not news.changed:
                return None
            self._news[board] = _News(watchers=news.watchers)
        return {
            "points": list(news.points),
            "predictions": list(news.predictions),
            "events": list(news.events),
            "thumbnail": news.thumbnail,
            "detail": self.board_document(board, series=False),
        }

    def time(self) -> float:
        """Return what time it is (Unix seconds)."""
        return self._clock()

    @property
    def connected(self) -> bool:
        """Whether we listen now."""
        return self._source[0]

    @property
    def garbage(self) -> int:
        """How many payloads could not be understood, or were far too long."""
        return self._live.garbage + self._oversized

    def has(self, board: str) -> bool:
        """Whether there is a tile of that board."""
        return board in self._tiles

    def _card(self, view: Any, digest: str | None) -> ModelCard | None:  # noqa: ANN401 - BoardView | None
        if view is not None and view.model is not None and (digest is None or view.model.digest == digest):
            card: ModelCard = view.model
            return card
        return self._cards.get(digest or "")

    def _listening(self) -> Listening:
        return Listening(since=self._hearing_since, now=self._clock() if self._deaf_since is None else self._deaf_since)
