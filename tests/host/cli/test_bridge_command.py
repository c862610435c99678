"""`bridge` as users run it, on a real mosquitto."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tests.host.telemetry.conftest import FLEET

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.mosquitto
PATIENCE_S = 120.0
ANNOUNCED = {f"homeassistant/device/tflotilla_{FLEET}_pi-{number}/config" for number in (1, 2, 3)}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tflotilla.host", "bridge", *map(str, arguments)]


def bridge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def test_once_announces_every_board_and_ends(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    done = bridge("home-assistant", "--once", "--fleet", fleet_file, "--json")
    with brokers.listening(mosquitto, "homeassistant/#") as heard:
        brokers.until(lambda: len(heard.received) == 3, "what is retained to come")

    assert (done.returncode, done.stderr) == (0, "")
    assert {topic for topic, _, _ in heard.received} == ANNOUNCED
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()][1:] == [
        "announcing 3 boards below homeassistant/device/"
    ]


def test_it_serves_until_it_is_told_to_stop(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    with brokers.listening(mosquitto, "ha/#") as heard:
        running = subprocess.Popen(
            command("home-assistant", "--discovery-prefix", "ha", "--fleet", fleet_file), stderr=subprocess.PIPE
        )
        brokers.until(lambda: len(heard.received) >= 3, "announcements")
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=PATIENCE_S)

    assert (running.returncode, said) == (0, b"stopped\n")


def test_it_outlives_a_restart_of_the_broker(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    """The broker keeps nothing here, so that everything must be said again."""
    running = subprocess.Popen(command("home-assistant", "--fleet", fleet_file), stdout=subprocess.DEVNULL)
    try:
        with brokers.listening(mosquitto, "homeassistant/#") as heard:
            brokers.until(lambda: len(heard.received) >= 3, "announcements")
        mosquitto.kill()
        mosquitto.start()
        with brokers.listening(mosquitto, "homeassistant/#") as heard:
            brokers.until(lambda: {topic for topic, _, _ in heard.received} == ANNOUNCED, "announcements to be back")
    finally:
        running.terminate()

    assert running.wait(timeout=PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["home-assistant", "--discovery-prefix", "a/#"], 2, "--discovery-prefix 'a/#' is no topic"),
        (["home-assistant", "--for", "0"], 2, "--for must be a number of seconds above 0, not 0"),
        (["home-assistant", "--fleet", "nowhere.toml"], 3, "no fleet file"),
        (["zigbee"], 2, "No such command 'zigbee'"),
    ],
)
def test_what_is_wrong_is_one_line(fleet_file: Path, arguments: list[str], code: int, words: str) -> None:
    with_fleet = arguments if "--fleet" in arguments else [*arguments, "--fleet", str(fleet_file)]
    done = bridge(*with_fleet)

    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert words in done.stderr


def test_a_broker_that_is_down_is_said(fleet_file: Path, mosquitto: brokers.Mosquitto) -> None:
    mosquitto.stop()
    done = bridge("home-assistant", "--fleet", fleet_file)

    assert (done.returncode, done.stderr.count("\n")) == (10, 1)
    assert "can't be reached" in done.stderr
