"""A fleet under rules: fed with what arrives, it says which alarms changed and what is to be published of them.

    watching = Watching(fleet.name, Watched(rules=…, boards=…))
    watching.hear(broker.receive(…))
    outcome = watching.look(now, connected=…, connections=…)

What fires is published retained, one message per board on `tflotilla-host/<fleet>/<board>/alarm`, and that message is
emptied when nothing fires there any more. A watcher that starts takes over what the one before it published, so alarms
survive its restart without a file.

Rules it keeps: nothing changes while there is no connection, nor in the second after it is there, when the broker still
tells what it kept; after each interruption all is published again.
What it does NOT do: connect, publish, or look at a clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.telemetry.alarms import judging, rules, stepping
from tflotilla.host.telemetry.alarms.recent import Lately, Recent, Wants
from tflotilla.host.telemetry.alarms.rules import Rule
from tflotilla.host.telemetry.alarms.stepping import Alarm, Change, Key, Seen
from tflotilla.host.telemetry.live import Live
from tflotilla.host.telemetry.presence import Listening
from tflotilla.shared.contract import codec, topics
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tflotilla.host.telemetry.inbox import Received

SCHEMA = 1
_SETTLING_S = 1.0
#: What a look learns from it comes at once; windows may take a while.
_LEAST_LOOK_S = 2.0
_LONGEST_PAYLOAD = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The rules, and which boards each of them is for (name of the rule → boards)."""

    rules: tuple[Rule, ...]
    boards: Mapping[str, tuple[str, ...]]

    @property
    def every_board(self) -> frozenset[str]:
        """All that some rule is for."""
        return frozenset(board for names in self.boards.values() for board in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a look found."""

    changes: tuple[Change, ...] = ()
    #: Topic → payload, to be published retained.
    publications: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


class Watching:
    """One thread."""

    def __init__(self, fleet: str, watched: Watched) -> None:
        self._fleet = fleet
        self._live = Live(fleet)
        self._spans: dict[float, Recent] = {}
        self._alarms: dict[Key, Alarm] = {}
        self._told: set[str] = set()
        #: Since when there is this connection.
        self._since: float | None = None
        self._connections = 0
        self._adopting = True
        self._dropped = self._dropped_before = 0
        self.use(watched)

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What has to be heard; predictions only where their numbers are counted."""
        counted = any(isinstance(rule.condition, rules.Drops) for rule in self._watched.rules)
        spared = ("thumbnail",) if counted else ("thumbnail", "predictions")
        heard = [each for each in topics.every_board(self._fleet) if not each.endswith(spared)]
        return (*heard, topics.host_topic(self._fleet, "+", "alarm"))

    @property
    def firing(self) -> tuple[Alarm, ...]:
        """What fires now, by board and rule."""
        return tuple(alarm for _, alarm in sorted(self._alarms.items()) if alarm.phase == "firing")

    @property
    def garbage(self) -> int:
        """Messages that were not understood."""
        return self._live.garbage

    def use(self, watched: Watched) -> None:
        """Take other rules, or other boards; what was heard of those that stay is kept."""
        self._watched = watched
        self._every_board = watched.every_board
        self._live.know(self._every_board)
        spans: dict[float, Wants] = {}
        for rule in watched.rules:
            over_s = _over_s(rule.condition)
            if over_s is not None:
                spans[over_s] = _wants(rule.condition, spans.get(over_s, Wants()))
        if spans.keys() != self._spans.keys() or any(self._spans[s].wants != wants for s, wants in spans.items()):
            self._spans = {over_s: Recent(over_s=over_s, wants=wants) for over_s, wants in spans.items()}

    def hear(self, received: Iterable[Received], *, dropped: int = 0) -> None:
        """Take what arrived; `dropped` is how much came too fast for us since the beginning."""
        self._dropped = dropped
        for each in received:
            if each.topic.startswith(f"{topics.HOST_ROOT}/"):
                if each.retained and self._adopting:
                    self._adopt(each)
                continue
            for message in self._live.hear([each]):
                if message.board in self._every_board:
                    missing = self._live.boards[message.board].missing
                    for span in self._spans.values():
                        span.hear(message, at=each.at, missing=missing)

    def look(self, now: float, *, connected: bool, connections: int) -> Outcome:
        """Judge every board by every rule. `connections` counts how often there was a connection."""
        begins = connected and connections != self._connections
        if not connected or begins:
            self._since = None if not connected else now
            if self._connections and begins:
                # What boards said meanwhile, we did not hear.
                self._lost(now)
            self._connections = connections
            self._alarms = stepping.deaf(self._alarms)
        if self._dropped > self._dropped_before:
            self._dropped_before = self._dropped
            self._lost(now)
        if self._since is None or now - self._since < _SETTLING_S:
            return Outcome(publications=self._publications(sorted(self._told), now) if begins else {})
        self._adopting = False
        self._alarms, changes = stepping.step(self._alarms, self.seen(now), now)
        return Outcome(
            changes=changes,
            publications=self._publications(sorted({change.alarm.board for change in changes}), now),
        )

    def _lost(self, now: float) -> None:
        for span in self._spans.values():
            span.lost(now)

    def seen(self, now: float) -> dict[Key, Seen]:
        """Return what each rule sees at each of its boards."""
        listening = Listening(since=now if self._since is None else self._since, now=now)
        # What several rules ask of one stretch of time is added up once.
        sums: dict[tuple[float, str], Lately | None] = {}
        seen: dict[Key, Seen] = {}
        for rule in self._watched.rules:
            over_s = _over_s(rule.condition)
            for board in self._watched.boards.get(rule.name, ()):
                lately = None
                if over_s is not None:
                    if (over_s, board) not in sums:
                        sums[over_s, board] = self._spans[over_s].lately(board, now)
                    lately = sums[over_s, board]
                sight = judging.judge(rule.condition, self._live.boards.get(board), lately, listening)
                seen[board, rule.name] = Seen(rule=rule, sight=sight)
        return seen

    def glance(self, now: float) -> Glance:
        """Return what is broken now, without waiting for what rules wait for, but with what a watcher says."""
        if self._since is None:
            self._since = now
        seen = self.seen(now)
        at_once = {
            key: dataclasses.replace(each, rule=dataclasses.replace(each.rule, for_s=0.0, keep_firing_for_s=0.0))
            for key, each in seen.items()
        }
        alarms, _ = stepping.step(self._alarms, at_once, now)
        waits = now - self._since < _LEAST_LOOK_S or any(each.sight.waits for each in seen.values())
        return Glance(seen=seen, firing=alarms, complete=not waits)

    def _publications(self, boards: Sequence[str], now: float) -> dict[str, bytes]:
        self._told.update(boards)
        return {topics.host_topic(self._fleet, board, "alarm"): self._payload(board, now) for board in boards}

    def _payload(self, board: str, now: float) -> bytes:
        """Return what fires at a board; empty, which deletes what is retained, where nothing does."""
        firing = [alarm for key, alarm in sorted(self._alarms.items()) if key[0] == board and alarm.phase == "firing"]
        if not firing:
            return b""
        document = {"schema": SCHEMA, "fleet": self._fleet, "board": board, "time": now}
        return codec.canonical_json({**document, "alarms": [_entry(alarm) for alarm in firing]})

    def _adopt(self, received: Received) -> None:
        """Take over what a watcher before us said that fires."""
        board = received.topic.split("/")[2]
        # What we took over is ours to say again when a broker forgot it, and to empty.
        self._told.add(board)
        for entry in _entries(received.payload):
            self._alarms[board, entry.rule] = stepping.Alarm(
                board=board,
                rule=entry.rule,
                kind=entry.kind,
                severity=entry.severity,
                phase="firing",
                since=entry.since,
                figure=entry.figure,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One look: what every rule saw, and what is broken."""

    seen: Mapping[Key, Seen]
    firing: Mapping[Key, Alarm]
    #: Whether listening longer would tell no more.
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One alarm in what is published."""

    rule: str
    kind: str
    severity: rules.Severity
    since: float
    figure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What is published of a board."""

    schema: int
    alarms: tuple[_Entry, ...]


def document(fleet: str, change: Change) -> dict[str, Any]:
    """Return a change as JSON says it: to a webhook, and on stdout."""
    alarm = change.alarm
    return {
        "fleet": fleet,
        "board": alarm.board,
        "rule": alarm.rule,
        "kind": alarm.kind,
        "severity": alarm.severity,
        "state": change.state,
        "figure": alarm.figure,
        "since": alarm.since,
        "at": change.at,
        "summary": summary(fleet, change),
    }


def summary(fleet: str, change: Change) -> str:
    """Return a change as one line for people."""
    alarm = change.alarm
    return f"{fleet}: {alarm.board}: {alarm.rule} {change.state} ({alarm.severity}): {alarm.figure}"


def _entry(alarm: Alarm) -> _Entry:
    return _Entry(rule=alarm.rule, kind=alarm.kind, severity=alarm.severity, since=alarm.since, figure=alarm.figure)


def _entries(payload: bytes) -> tuple[_Entry, ...]:
    """Return the alarms of a message that somebody published; nothing of what is none of ours."""
    if not payload or len(payload) > _LONGEST_PAYLOAD:
        return ()
    try:
        return codec.decode(_Said, codec.parse_json(payload, "alarm"), "alarm").alarms
    except ContractError:
        return ()


def _over_s(condition: rules.Condition) -> float | None:
    return getattr(condition, "over_s", None)


def _wants(condition: rules.Condition, before: Wants) -> Wants:
    """Return what a rule needs to be kept, beside what others of the same time do."""
    stages = before.stages | {condition.stage} if isinstance(condition, rules.Latency) else before.stages
    return Wants(stages=frozenset(stages), labels=before.labels or isinstance(condition, rules.Drift))
