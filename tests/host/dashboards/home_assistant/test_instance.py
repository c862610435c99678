"""A real Home Assistant, a real mosquitto with the shipped ACLs, the bridge as users run it, and scripted boards."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tests.host.dashboards.home_assistant import environment, instance
from tests.host.telemetry.fake_board import FakeBoard, latency, metrics, state
from tflotilla.host.dashboards.home_assistant import discovery
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.telemetry import mqtt
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.agent_config import MqttConfig
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.dashboards, pytest.mark.mosquitto]
ROOT = Path(__file__).resolve().parents[4]
FLEET = "barn"
PASSWORD = "open sesame"
USERS = ("home-assistant", "pi-1", "pi-2", "pi-3", "pi-4")
JPEG = b"\xff\xd8\xff\xe0 a very small picture"
WINDOW = dataclasses.replace(
    metrics(count=30),
    window_s=2.0,
    stages={"total": latency(1_234_567)},
    labels=(messages.LabelCount(label="seven", count=30, mean_score=0.75),),
    temperature_c=51.25,
    throttled=True,
)


@dataclass(kw_only=True)
class House:
    """Everything that runs in it."""

    home: instance.Instance
    broker: brokers.Mosquitto
    fleet: Path

    def board(self, name: str) -> FakeBoard:
        config = MqttConfig(port=self.broker.port, username=name)
        return FakeBoard(config=config, password=PASSWORD, fleet=FLEET, board=name)


@contextlib.contextmanager
def bridged(path: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "tflotilla.host", "bridge", "home-assistant", "--fleet", str(path)]
    with (path.parent / "bridge.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, (path.parent / "bridge.log").read_text()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    python = environment.python()
    folder = tmp_path_factory.mktemp("house")
    rules = "\n".join((ROOT / each).read_text() for each in ("deploy/mosquitto/acl", "deploy/home-assistant/acl"))
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(
            brokers.mosquitto(folder / "broker", username="host", password=PASSWORD, acl=rules, extra="log_type all")
        )
        for user in USERS:
            broker.add_user(user, PASSWORD)
        (folder / "password").write_text(PASSWORD)
        path = folder / "fleet.toml"
        fleet = Fleet.create(
            path, name=FLEET, mqtt=MqttConfig(port=broker.port, username="host", password_file="password")
        )
        for number in (1, 2, 3, 4):
            fleet = fleet.add(f"pi-{number}", BoardEntry(host="127.0.0.1"), None)
        home = stack.enter_context(instance.running(python, folder / "home"))
        home.connect(port=broker.port, username="home-assistant", password=PASSWORD)
        stack.enter_context(bridged(path))
        yield House(home=home, broker=broker, fleet=path)


def test_a_board_becomes_a_device_whose_figures_are_shown(house: House) -> None:
    with house.board("pi-1") as board:
        board.say("state", state())
        house.home.await_state("sensor.pi_1_model_version", "digits-1.0.0")
        board.say("metrics", WINDOW)
        house.home.await_state("sensor.pi_1_latency_p50", "1.2346")
        shown = {entity: house.home.state(entity) for entity in sorted(house.home.entities("pi_1"))}
        request = shown.pop("button.pi_1_benchmark")

    assert request == "unknown"
    assert shown == {
        "binary_sensor.pi_1_throttled": "on",
        "sensor.pi_1_agent_version": "0.1.0",
        "sensor.pi_1_confidence": "75.0",
        "sensor.pi_1_inference_rate": "15.0",
        "sensor.pi_1_latency_p50": "1.2346",
        "sensor.pi_1_latency_p99": "3.7037",
        "sensor.pi_1_model_version": "digits-1.0.0",
        "sensor.pi_1_temperature": "51.25",
        "sensor.pi_1_top_label": "seven",
        "update.pi_1_model": "off",
    }


def test_a_board_that_dies_becomes_unavailable_and_comes_back(house: House) -> None:
    with house.board("pi-2") as board:
        house.home.await_state("button.pi_2_benchmark", "unknown")
        board.die()
        house.home.await_state("button.pi_2_benchmark", "unavailable")
    with house.board("pi-2"):
        house.home.await_state("button.pi_2_benchmark", "unknown")


def test_the_button_asks_the_board_and_every_press_is_a_request_of_its_own(house: House) -> None:
    with house.board("pi-2") as board:
        house.home.await_state("button.pi_2_benchmark", "unknown")
        for _ in range(2):
            house.home.post("services/button/press", {"entity_id": "button.pi_2_benchmark"})
        brokers.until(lambda: len(board.requests) == 2, "both requests to arrive")

    assert len({request.request for request in board.requests}) == 2
    assert {request.cancel for request in board.requests} == {False}


def test_the_update_shows_a_deployment_under_way_and_can_not_be_installed_from_there(house: House) -> None:
    status = DeploymentStatus(deployment="d", candidate="ef" * 32, title="digits-2.0.0", state=DeploymentState.PROBING)
    with house.board("pi-2") as board:
        board.say("state", state())
        board.say("deployment", status)
        house.home.await_state("update.pi_2_model", "on")
        shown = house.home.attributes("update.pi_2_model")

    assert (shown["installed_version"], shown["latest_version"]) == ("digits-1.0.0", "digits-2.0.0")
    assert (shown["in_progress"], shown["update_percentage"]) == (True, 55)
    # UpdateEntityFeature.INSTALL is 1.
    assert shown["supported_features"] & 1 == 0


def test_the_picture_of_the_last_prediction_is_shown(house: House) -> None:
    said = messages.Thumbnail(item="7.png", time=1.0, jpeg=base64.b64encode(JPEG).decode(), top=())
    with house.board("pi-2") as board:
        board.say("thumbnail", said)
        brokers.until(lambda: house.home.state("image.pi_2_last_prediction") is not None, "the picture's entity")
        brokers.until(
            lambda: house.home.get("image_proxy/image.pi_2_last_prediction").content == JPEG, "the picture itself"
        )


def test_a_board_that_leaves_fleet_toml_leaves_home_assistant(house: House) -> None:
    with house.board("pi-3"):
        house.home.await_state("button.pi_3_benchmark", "unknown")
        Fleet.load(house.fleet).remove("pi-3")
        brokers.until(lambda: not house.home.entities("pi_3"), "its entities to go")


def test_home_assistant_that_starts_again_finds_the_boards_even_those_the_broker_forgot(house: House) -> None:
    """The retained announcement is gone, as after a broker without persistence: its birth brings it back."""
    host = Fleet.load(house.fleet).mqtt
    assert host is not None
    with house.board("pi-4"):
        house.home.await_state("button.pi_4_benchmark", "unknown")
        topic = discovery.topic("homeassistant", FLEET, "pi-4")
        with mqtt.connect(host, folder=house.fleet.parent) as connection:
            connection.publish(topic, b"", retain=True)
        brokers.until(lambda: not house.home.entities("pi_4"), "its entities to go")
        house.home.stop()
        house.home.start()
        house.home.await_state("button.pi_4_benchmark", "unknown")


def test_nobody_did_what_the_shipped_rules_forbid_and_nobody_complained(house: House) -> None:
    refused = [line for line in house.broker.log.splitlines() if "denied" in line.lower()]
    complaints = [line for line in house.home.log.splitlines() if "mqtt" in line.lower()]

    assert (refused, complaints) == ([], [])
    assert "does not let us" not in (house.fleet.parent / "bridge.log").read_text()
