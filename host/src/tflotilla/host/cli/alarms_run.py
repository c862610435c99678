"""`tflotilla alarms`: one look at the fleet, or a watch that never ends."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import alarm_rules, interrupts, output, selecting
from tflotilla.shared.contract.errors import AlarmError, BrokerError, ConfigError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.cli.alarm_rules import Loaded
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.alarms.stepping import Change
    from tflotilla.host.telemetry.alarms.watching import Glance, Outcome, Watching
    from tflotilla.host.telemetry.alarms.webhook import Webhook
    from tflotilla.host.telemetry.mqtt import Connection
    from tflotilla.shared.contract.agent_config import MqttConfig

_TICK_S = 0.25
#: How long a look listens at most, unless it is told: windows come every second, mostly.
_LOOK_S = 10.0
_AGAIN_S = 5.0
_RELOAD_S = 5.0
#: Rules are looked at once a second, and in no more than that share of the time.
_LOOK_EVERY_S = 1.0
_SHARE_OF_TIME = 0.2
_NAMED = 5


def run(
    watch: Annotated[bool, typer.Option("--watch", help="Go on: tell, publish and post what changes.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", help="Listen that long; default as long as it takes, at most 10 s."),
    ] = None,
    rules: alarm_rules.RulesFile = None,
    fleet: selecting.FleetFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document; with --watch a line of JSON per change.")
    ] = False,
) -> None:
    """Look once at what boards report, or with --watch for good, and say which rules are broken.

    A look doesn't wait for what a rule says with `for`: what is broken at its end fires. A watch publishes what fires
    on `tflotilla-host/FLEET/BOARD/alarm`, retained, and posts changes to the webhook of alarms.toml. Without an
    alarms.toml a few rules hold that nobody wants broken.

    Example: tflotilla alarms --for 30

    Exit codes: 0 nothing fires, 2 usage, 3 fleet.toml or a rule is wrong, 10 the broker is down or refuses us, 15
    alarms are firing.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry import presence

    if seconds is not None and not seconds > 0:
        message = f"--for must be a number of seconds above 0, not {seconds:g}"
        raise UsageError(message)
    loaded = Fleet.load(fleet)
    if loaded.mqtt is None:
        message = f"{loaded.path} has no [mqtt] table, so nothing reports; add host and port of your broker"
        raise ConfigError(message)
    found = alarm_rules.load(loaded, rules)
    config = dataclasses.replace(loaded.mqtt, keepalive_s=min(loaded.mqtt.keepalive_s, presence.KEEPALIVE_S))
    if watch:
        interrupts.take_the_end_for_one()
        firing = _Watch(loaded, config, found, rules_given=rules is not None, as_json=as_json).run(seconds)
    else:
        firing = _look(loaded, config, found, seconds, as_json=as_json)
    if firing:
        more = "" if len(firing) <= _NAMED else f" and {len(firing) - _NAMED} more"
        message = f"{len(firing)} {'alarm fires' if len(firing) == 1 else 'alarms fire'}: {', '.join(firing[:_NAMED])}"
        raise AlarmError(message + more)


def _look(fleet: Fleet, config: MqttConfig, found: Loaded, seconds: float | None, *, as_json: bool) -> list[str]:
    from tflotilla.host.telemetry import mqtt
    from tflotilla.host.telemetry.alarms.watching import Watching

    watching = Watching(fleet.name, found.watched)
    with mqtt.connect(config, folder=fleet.folder) as broker:
        broker.subscribe(watching.subscriptions)
        begun = time.monotonic()
        glance = watching.glance(time.time())
        while (left := (seconds or _LOOK_S) - (time.monotonic() - begun)) > 0:
            watching.hear(broker.receive(timeout_s=min(_TICK_S, left)))
            if broker.problem is not None:
                raise BrokerError(broker.problem)
            glance = watching.glance(time.time())
            if glance.complete and seconds is None:
                break
    if as_json:
        output.emit_json(_document(fleet, glance))
    else:
        _show(fleet, found, glance)
    return [f"{board} {rule}" for board, rule in sorted(glance.firing)]


def _state(glance: Glance, key: tuple[str, str]) -> str:
    if key in glance.firing:
        return "firing"
    return "unknown" if glance.seen[key].sight.broken is None else "ok"


def _figure(glance: Glance, key: tuple[str, str]) -> str:
    return glance.firing[key].figure if key in glance.firing else glance.seen[key].sight.figure


def _document(fleet: Fleet, glance: Glance) -> dict[str, object]:
    return {
        "fleet": fleet.name,
        "at": time.time(),
        "firing": len(glance.firing),
        "alarms": [
            {
                "board": board,
                "rule": rule,
                "kind": each.rule.kind,
                "severity": each.rule.severity,
                "state": _state(glance, (board, rule)),
                "figure": _figure(glance, (board, rule)),
                "since": glance.firing[board, rule].since if (board, rule) in glance.firing else None,
            }
            for (board, rule), each in sorted(glance.seen.items())
        ],
    }


def _show(fleet: Fleet, found: Loaded, glance: Glance) -> None:
    states = {key: _state(glance, key) for key in glance.seen}
    rows = [
        (board, rule, glance.seen[board, rule].rule.severity, states[board, rule], _figure(glance, (board, rule)))
        for board, rule in sorted(glance.seen, key=lambda key: (states[key] != "firing", key))
        if states[board, rule] != "ok"
    ]
    if rows:
        output.emit_table(f"alarms of {fleet.name}", ("board", "rule", "severity", "state", "figure"), rows)
    kept = sum(state == "ok" for state in states.values())
    unknown = sum(state == "unknown" for state in states.values())
    said = f"{len(glance.firing)} firing, {kept} kept, {unknown} not to be told"
    by_itself = "" if found.path is not None else "; no alarms.toml: the rules that hold by themselves"
    output.note(said + by_itself)


class _Watch:
    """One `--watch`: it outlives its broker, and follows its files."""

    def __init__(self, fleet: Fleet, config: MqttConfig, found: Loaded, *, rules_given: bool, as_json: bool) -> None:
        from tflotilla.host.telemetry.alarms.watching import Watching

        self._fleet = fleet
        self._config = config
        self._found = found
        self._rules_given = rules_given
        self._as_json = as_json
        self._watching: Watching = Watching(fleet.name, found.watched)
        self._reload_at = time.monotonic() + _RELOAD_S
        self._said: set[str] = set()

    def run(self, seconds: float | None) -> list[str]:
        """Watch until told to end; return what fires then, nothing where it was interrupted."""
        from tflotilla.host.telemetry.alarms import webhook

        deadline = None if seconds is None else time.monotonic() + seconds
        with ExitStack() as stack:
            config = self._found.rules.webhook
            hook = None
            if config is not None:
                hook = stack.enter_context(webhook.opened(config, folder=self._found.folder, tell=self._tell_once))
            try:
                self._until(deadline, hook)
            except KeyboardInterrupt:
                output.note("stopped; what fires stays published")
                return []
        return [f"{alarm.board} {alarm.rule}" for alarm in self._watching.firing]

    def _until(self, deadline: float | None, hook: Webhook | None) -> None:
        from tflotilla.host.telemetry import mqtt

        while True:
            try:
                with mqtt.connect(self._config, folder=self._fleet.folder) as broker:
                    broker.subscribe(self._watching.subscriptions)
                    output.note(f"watching {len(self._found.watched.every_board)} boards of {self._fleet.name}")
                    self._follow(broker, deadline, hook)
                    return
            except BrokerError as error:
                if deadline is not None:
                    raise
                self._tell_once(f"{error}; trying again")
                time.sleep(_AGAIN_S)

    def _follow(self, broker: Connection, deadline: float | None, hook: Webhook | None) -> None:
        look_at = time.monotonic()
        connected = True
        while deadline is None or time.monotonic() < deadline:
            connections = broker.connections
            left = _TICK_S if deadline is None else min(_TICK_S, deadline - time.monotonic())
            self._watching.hear(broker.receive(timeout_s=max(0.0, left)), dropped=broker.dropped)
            if broker.dropped:
                self._tell_once("messages come faster than they can be read, and some are lost; see docs/alarms.md")
            if broker.connected != connected:
                connected = broker.connected
                output.note("the broker is back" if connected else "the broker is away: nothing fires or resolves")
            if self._reload():
                broker.subscribe(self._watching.subscriptions)
            begun = time.monotonic()
            if begun >= look_at or not connected:
                outcome = self._watching.look(time.time(), connected=connected, connections=connections)
                self._pass_on(outcome, broker, hook)
                spent = time.monotonic() - begun
                look_at = begun + max(_LOOK_EVERY_S, spent / _SHARE_OF_TIME)
        broker.confirmed()

    def _pass_on(self, outcome: Outcome, broker: Connection, hook: Webhook | None) -> None:
        from tflotilla.host.telemetry.alarms import watching
        from tflotilla.host.telemetry.alarms.rules import SEVERITIES

        for topic, payload in outcome.publications.items():
            broker.send(topic, payload, retained=True)
        for topic, reason in broker.refusals().items():
            self._tell_once(f"the MQTT broker does not let us write {topic.split('/')[0]}/…: {reason}; see its ACL")
        for change in outcome.changes:
            document = watching.document(self._fleet.name, change)
            self._write(change, document)
            config = self._found.rules.webhook
            if hook is not None and config is not None:
                severe = SEVERITIES.index(change.alarm.severity) >= SEVERITIES.index(config.at_least)
                if severe:
                    hook.offer(document)

    def _write(self, change: Change, document: dict[str, object]) -> None:
        if self._as_json:
            typer.echo(json.dumps(document, sort_keys=True))
            return
        alarm = change.alarm
        at = time.strftime("%H:%M:%S", time.localtime(change.at))
        typer.echo(f"{at}  {change.state:<9} {alarm.severity:<9} {alarm.board:<16} {alarm.rule}: {alarm.figure}")

    def _reload(self) -> bool:
        """Follow fleet.toml and alarms.toml; what can't be read changes nothing until it can."""
        from tflotilla.host.fleet.inventory.fleet import Fleet

        if time.monotonic() < self._reload_at:
            return False
        self._reload_at = time.monotonic() + _RELOAD_S
        try:
            fleet = Fleet.load(self._fleet.path)
            if (fleet.name, fleet.mqtt) != (self._fleet.name, self._fleet.mqtt):
                self._tell_once(f"{fleet.path} names another fleet or broker now; start again")
                return False
            found = alarm_rules.load(fleet, self._found.path if self._rules_given else None)
        except ConfigError as error:
            self._tell_once(f"{error}; going on with what it said before")
            return False
        if found.watched == self._found.watched:
            return False
        if found.rules.webhook != self._found.rules.webhook:
            self._tell_once("the webhook of alarms.toml changed; start again")
            found = alarm_rules.with_webhook(found, self._found.rules.webhook)
        self._found = found
        self._watching.use(found.watched)
        output.note(f"{len(found.rules.rules)} rules, {len(found.watched.every_board)} boards now")
        return True

    def _tell_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            output.note(line)
