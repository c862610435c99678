"""The shipped flow, in a real Node-RED on a real broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests import brokers
from tests.host.dashboards.node_red import installed
from tests.host.dashboards.prometheus import said
from tests.host.telemetry.fake_board import FakeBoard
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.agent_config import MqttConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDPOINT = "/tflotilla/boards"
#: Those that every Node-RED brings along.
CORE_NODES = {
    *("tab", "mqtt-broker", "mqtt in", "comment", "function", "debug"),
    *("http in", "http response", "catch"),
}


def flows() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = json.loads(installed.FLOWS.read_text())
    return nodes


def test_the_flow_is_made_of_core_nodes_alone() -> None:
    assert set() == {node["type"] for node in flows()} - CORE_NODES


def test_every_wire_of_the_flow_ends_at_a_node() -> None:
    ids = [node["id"] for node in flows()]
    ends = {end for node in flows() for output in node.get("wires", ()) for end in output}

    assert len(ids) == len(set(ids))
    assert set() == ends - set(ids)


def test_the_flow_listens_to_channels_of_the_contract_and_publishes_nothing() -> None:
    listened = {node["topic"].rsplit("/", 1)[1] for node in flows() if node["type"] == "mqtt in"}

    assert set() == listened - set(messages.BODIES)
    assert [] == [node for node in flows() if node["type"] == "mqtt out"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Mosquitto]:
    with brokers.mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def flow(broker: brokers.Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[installed.NodeRed]:
    nodes = flows()
    (config,) = (node for node in nodes if node["type"] == "mqtt-broker")
    config["port"] = str(broker.port)
    folder: Path = tmp_path_factory.mktemp("node-red") / "user"
    with installed.node_red(folder, nodes, endpoint=ENDPOINT) as running:
        yield running


def board(broker: brokers.Mosquitto, name: str) -> FakeBoard:
    return FakeBoard(config=MqttConfig(port=broker.port), password=None, fleet="barn", board=name)


def known(flow: installed.NodeRed, name: str) -> dict[str, Any]:
    """Return what the flow knows of a board; nothing of one that said nothing."""
    answer: dict[str, Any] = flow.get(ENDPOINT).json().get(name, {})
    return answer


@pytest.mark.dashboards
@pytest.mark.mosquitto
def test_latency_and_labels_come_out_of_the_flow(broker: brokers.Mosquitto, flow: installed.NodeRed) -> None:
    labels = (
        messages.LabelCount(label="one", count=1, mean_score=0.5),
        messages.LabelCount(label="seven", count=3, mean_score=0.9),
    )
    with board(broker, "pi-1") as pi:
        brokers.until(lambda: known(flow, "pi-1").get("online") is True, "the board to be online")
        pi.say("metrics", said.window([2_000_000, 3_000_000, 4_000_000, 5_000_000], labels=labels, low_confidence=1))
        brokers.until(lambda: "rate" in known(flow, "pi-1"), "its window")
        answer = flow.get(ENDPOINT, board="pi-1").json()

    answer.pop("time")
    assert {
        "board": "pi-1",
        "online": True,
        "rate": 4,
        "errors": 0,
        "p50_ms": 3,
        "p99_ms": 5,
        "temperature_c": 61.5,
        "throttled": False,
        "low_confidence_share": 0.25,
        "labels": [
            {"label": "seven", "count": 3, "share": 0.75, "mean_score": 0.9},
            {"label": "one", "count": 1, "share": 0.25, "mean_score": 0.5},
        ],
    } == answer


@pytest.mark.dashboards
@pytest.mark.mosquitto
def test_a_board_that_gets_slow_is_told_once_and_once_when_it_is_fast_again(
    broker: brokers.Mosquitto, flow: installed.NodeRed
) -> None:
    with board(broker, "pi-2") as pi:
        for latency_ns in (300_000_000, 310_000_000, 2_000_000, 3_000_000):
            pi.say("metrics", said.window([latency_ns]))
        brokers.until(lambda: known(flow, "pi-2").get("p99_ms") == 3, "its last window")
        brokers.until(lambda: "pi-2: p99 is fine again" in flow.log, "the end of the alarm")

    told = [line.split("pi-2: ")[1] for line in flow.log.splitlines() if "pi-2: " in line]
    assert ["p99 is 300.0 ms, over 250 ms", "p99 is fine again"] == told


@pytest.mark.dashboards
@pytest.mark.mosquitto
def test_a_board_that_is_cut_off_is_offline(broker: brokers.Mosquitto, flow: installed.NodeRed) -> None:
    with board(broker, "pi-3") as pi:
        brokers.until(lambda: known(flow, "pi-3").get("online") is True, "the board to be online")
        pi.die()

    brokers.until(lambda: known(flow, "pi-3").get("online") is False, "its last will")


@pytest.mark.dashboards
@pytest.mark.mosquitto
@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\xfe", b"{", b"null", b"[]", b'{"schema":2}', b'{"schema":1,"board":"pi-4"}']
)
def test_the_flow_lives_on_after_garbage(broker: brokers.Mosquitto, flow: installed.NodeRed, garbage: bytes) -> None:
    with board(broker, "pi-4") as pi:
        for channel in ("metrics", "availability"):
            pi._client.publish(f"tflotilla/barn/pi-4/{channel}", garbage, qos=1).wait_for_publish(brokers.PATIENCE_S)
        pi.say("metrics", said.window([7_000_000]))
        brokers.until(lambda: known(flow, "pi-4").get("p99_ms") == 7, "what came after the garbage")


@pytest.mark.dashboards
def test_a_board_that_said_nothing_is_not_found(flow: installed.NodeRed) -> None:
    assert 404 == flow.get(ENDPOINT, board="nobody").status_code


@pytest.mark.dashboards
def test_words_of_our_own_language_are_no_board(flow: installed.NodeRed) -> None:
    assert [404, 404] == [flow.get(ENDPOINT, board=name).status_code for name in ("constructor", "__proto__")]
