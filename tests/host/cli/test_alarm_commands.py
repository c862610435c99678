"""`alarms` as users run it, against scripted boards over a real mosquitto."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.host.telemetry import fake_board
from tests.host.telemetry.alarms import made
from tests.host.telemetry.conftest import FLEET, PASSWORD
from tflotilla.shared.contract import topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests import brokers
    from tests.host.telemetry.fake_board import FakeBoard
    from tflotilla.shared.contract.agent_config import MqttConfig

pytestmark = pytest.mark.mosquitto
PATIENCE_S = 120.0
OFF = '[alarms.off]\nkind = "offline"\nboards = "pi-1"\n'


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tflotilla.host", "alarms", *map(str, arguments)]


def alarms(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def rules(fleet_file: Path, text: str) -> None:
    (fleet_file.parent / "alarms.toml").write_text(text)


def test_a_look_at_a_healthy_board_ends_well(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    rules(fleet_file, OFF)

    with board("pi-1"):
        result = alarms("--fleet", fleet_file)

    assert (0, "", "0 firing, 1 kept, 0 not to be told\n") == (result.returncode, result.stdout, result.stderr)


def test_a_look_at_a_board_that_is_off_has_an_exit_code_of_its_own(
    fleet_file: Path, board: Callable[..., FakeBoard]
) -> None:
    rules(fleet_file, OFF + 'severity = "critical"\nfor = "1h"\n')
    with board("pi-1") as off:
        off.die()

    result = alarms("--fleet", fleet_file)

    assert 15 == result.returncode
    assert ["pi-1", "off", "critical", "firing", "offline"] == result.stdout.splitlines()[1].split()
    assert result.stderr.endswith("tflotilla: 1 alarm fires: pi-1 off\n")


def test_a_look_speaks_json(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    rules(fleet_file, '[alarms.off]\nkind = "offline"\n')

    with board("pi-1"):
        result = alarms("--fleet", fleet_file, "--json")

    document = json.loads(result.stdout)
    assert (0, FLEET, 0) == (result.returncode, document["fleet"], document["firing"])
    expected = [("pi-1", "ok", "online"), ("pi-2", "unknown", "never heard of"), ("pi-3", "unknown", "never heard of")]
    assert expected == [(each["board"], each["state"], each["figure"]) for each in document["alarms"]]


def test_a_fleet_without_rules_has_some(fleet_file: Path) -> None:
    result = alarms("check", "--fleet", fleet_file, "--json")

    names = [rule["name"] for rule in json.loads(result.stdout)["rules"]]
    assert (0, ["offline", "errors", "throttled", "drops", "labels"]) == (result.returncode, names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[alarms.a]\nkind = "ofline"', "alarms.a: kind: there is no 'ofline'; did you mean 'offline'?"),
        ('[alarms.a]\nkind = "offline"\nboards = "pi-9"', "alarms.a.boards: no board 'pi-9'; the fleet has pi-1"),
        ("\x00", "alarms.toml: "),
    ],
)
def test_a_mistake_in_the_rules_is_one_line(text: str, expected: str, fleet_file: Path) -> None:
    rules(fleet_file, text)

    for result in (alarms("check", "--fleet", fleet_file), alarms("--fleet", fleet_file)):
        assert (3, "") == (result.returncode, result.stdout)
        assert expected in result.stderr
        assert 1 == result.stderr.count("\n")


def test_a_broker_that_is_down_is_no_fleet_without_alarms(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    mosquitto.kill()

    result = alarms("--fleet", fleet_file)

    assert (10, "") == (result.returncode, result.stdout)
    assert 1 == result.stderr.count("\n")


class Watch:
    """`alarms --watch --json` at work, and a client that sees what it publishes."""

    def __init__(self, fleet_file: Path, config: MqttConfig, *arguments: str) -> None:
        self.published: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            command("--watch", "--fleet", fleet_file, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._read, daemon=True).start()
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set(config.username, PASSWORD)
        client.on_message = lambda _c, _d, message: self.published.put((message.topic, bytes(message.payload)))
        ready = threading.Event()
        client.on_subscribe = lambda *_: ready.set()
        client.connect(config.host, config.port)
        client.loop_start()
        client.subscribe(topics.host_topic(FLEET, "+", "alarm"), qos=1)
        assert ready.wait(PATIENCE_S)
        self.client = client

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def change(self) -> dict[str, Any]:
        return dict(json.loads(self.lines.get(timeout=PATIENCE_S)))

    def said(self, text: str) -> None:
        """Wait until it said that on stderr."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return
        pytest.fail(f"it never said {text!r}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self.client.disconnect()
        self.client.loop_stop()
        return code


@pytest.fixture
def watch(fleet_file: Path, config: MqttConfig) -> Iterator[Callable[..., Watch]]:
    """Give a maker of watches, which are ended at the end."""
    begun: list[Watch] = []

    def begin(*arguments: str) -> Watch:
        begun.append(Watch(fleet_file, config, *arguments))
        return begun[-1]

    yield begin
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(PATIENCE_S)


def test_a_watch_tells_publishes_and_takes_back(
    fleet_file: Path, board: Callable[..., FakeBoard], watch: Callable[..., Watch]
) -> None:
    rules(fleet_file, OFF)
    with board("pi-1") as pi:
        watching = watch("--json")
        watching.said("watching 1 boards of barn")
        pi.die()
        fired = watching.change()
        topic, payload = watching.published.get(timeout=PATIENCE_S)
    with board("pi-1", boot="boot-2"):
        resolved = watching.change()
        emptied = watching.published.get(timeout=PATIENCE_S)

    assert 0 == watching.end()
    assert ("firing", "pi-1", "off", "offline") == tuple(fired[key] for key in ("state", "board", "rule", "figure"))
    assert ("tflotilla-host/barn/pi-1/alarm", "off") == (topic, json.loads(payload)["alarms"][0]["rule"])
    assert ("resolved", fired["since"]) == (resolved["state"], resolved["since"])
    assert ("tflotilla-host/barn/pi-1/alarm", b"") == emptied


def test_a_watch_that_was_killed_is_taken_over_without_being_told_again(
    fleet_file: Path, board: Callable[..., FakeBoard], watch: Callable[..., Watch]
) -> None:
    rules(fleet_file, OFF)
    with board("pi-1") as pi:
        pi.die()
    first = watch("--json")
    fired = first.change()
    first.published.get(timeout=PATIENCE_S)
    first.process.kill()

    second = watch("--json")
    second.said("watching")
    look = alarms("--fleet", fleet_file, "--json")
    with board("pi-1", boot="boot-2"):
        resolved = second.change()

    assert fired["since"] == json.loads(look.stdout)["alarms"][0]["since"]
    assert ("resolved", fired["since"]) == (resolved["state"], resolved["since"])


def test_a_watch_outlives_its_broker(
    fleet_file: Path, board: Callable[..., FakeBoard], watch: Callable[..., Watch], mosquitto: brokers.Mosquitto
) -> None:
    rules(fleet_file, OFF)
    watching = watch("--json")
    watching.said("watching")

    mosquitto.kill()
    watching.said("the broker is away: nothing fires or resolves")
    mosquitto.start()
    watching.said("the broker is back")
    with board("pi-1") as pi:
        pi.die()

    assert "firing" == watching.change()["state"]


def test_a_watch_for_a_time_ends_with_what_fires(fleet_file: Path, board: Callable[..., FakeBoard]) -> None:
    rules(fleet_file, '[alarms.slow]\nkind = "latency"\nboards = "pi-1"\nabove_ms = 1\n')
    with board("pi-1") as pi:
        pi.say("state", fake_board.state())
        stop = threading.Event()

        def talk() -> None:
            while not stop.wait(0.2):
                pi.say("metrics", made.window())

        thread = threading.Thread(target=talk)
        thread.start()
        result = alarms("--watch", "--for", "5", "--fleet", fleet_file)
        stop.set()
        thread.join()

    assert 15 == result.returncode
    assert "firing    warning   pi-1             slow: p99 5.0" in result.stdout
