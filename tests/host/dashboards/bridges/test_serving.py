"""How a bridge is run: what it hears of, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from tests.host.dashboards.bridges.fake_broker import FLEET, NOW, FakeBroker, received
from tests.host.telemetry.fake_board import metrics, state
from tflotilla.host.dashboards.bridges import News, Publication
from tflotilla.host.dashboards.bridges.serving import Server
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared.contract.agent_config import MqttConfig
from tflotilla.shared.contract.errors import BrokerError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(kw_only=True)
class Recorder:
    """A bridge that writes down what it is told, and says what the test wants."""

    says: Sequence[Publication] = ()
    steps: int = 1000
    news: list[News] = field(default_factory=list)

    @property
    def also_hears(self) -> tuple[str, ...]:
        return ("weather/#",)

    @property
    def done(self) -> bool:
        return len(self.news) >= self.steps

    def step(self, news: News) -> Sequence[Publication]:
        self.news.append(news)
        return self.says

    def close(self) -> None:
        pass


@dataclass(kw_only=True)
class Scene:
    """A server with everything around it made of values."""

    server: Server
    bridge: Recorder
    broker: FakeBroker
    fleet: Fleet
    lines: list[str]
    now: list[float]
    #: What fleet.toml says when it is read again.
    read: list[Fleet]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    fleet = Fleet.create(tmp_path / "fleet.toml", name=FLEET)
    bridge, broker, lines, now, read = Recorder(), FakeBroker(), list[str](), [NOW], [fleet]
    server = Server(
        bridge,
        broker,
        Live(FLEET),
        fleet=fleet,
        reload=lambda: read[0],
        clock=lambda: now[0],
        tell=lines.append,
    )
    return Scene(server=server, bridge=bridge, broker=broker, fleet=fleet, lines=lines, now=now, read=read)


def test_boards_and_what_the_bridge_wants_are_subscribed(scene: Scene) -> None:
    scene.bridge.steps = 1
    scene.server.serve()

    assert "tflotilla/barn/+/metrics" in scene.broker.subscribed
    assert "weather/#" in scene.broker.subscribed


def test_what_boards_say_and_the_rest_come_apart_and_repetitions_not_at_all(scene: Scene) -> None:
    rain = Received(topic="weather/today", payload=b"rain", at=NOW)
    window = received("pi-1", "metrics", metrics(), seq=1)
    scene.broker.waiting = [received("pi-1", "state", state()), window, rain, window]
    scene.server.step(timeout_s=0)

    (news,) = scene.bridge.news
    assert [type(each.body).__name__ for each in news.messages] == ["State", "Metrics"]
    assert list(news.others) == [rain]


def test_it_begins_once_per_connection(scene: Scene) -> None:
    for _ in range(2):
        scene.server.step(timeout_s=0)
    scene.broker.interrupt()
    for _ in range(2):
        scene.server.step(timeout_s=0)

    assert [news.begins for news in scene.bridge.news] == [True, False, True, False]


def test_it_ends_at_its_time(scene: Scene) -> None:
    scene.server.serve(until=NOW)

    assert scene.bridge.news == []


def test_what_the_bridge_says_is_published_in_order(scene: Scene) -> None:
    scene.bridge.steps = 1
    scene.bridge.says = [Publication(topic="a", payload=b"1"), Publication(topic="b", payload=b"2", retained=True)]
    scene.server.serve()

    assert scene.broker.sent == [("a", b"1", False), ("b", b"2", True)]


def test_a_broker_that_confirms_nothing_is_an_error_in_the_end(scene: Scene) -> None:
    scene.bridge.steps = 1
    scene.bridge.says = [Publication(topic="a", payload=b"1")]
    scene.broker.takes = False

    with pytest.raises(BrokerError, match="did not confirm"):
        scene.server.serve()


def test_what_the_broker_refuses_is_said_once_for_all_boards(scene: Scene) -> None:
    for board in ("pi-1", "pi-2"):
        scene.broker.refused = {f"homeassistant/device/tflotilla_barn_{board}/config": "Not authorized"}
        scene.server.step(timeout_s=0)

    assert scene.lines == ["the MQTT broker does not let us write homeassistant/…: Not authorized; see its ACL"]


def test_a_bridge_that_could_not_do_its_one_task_fails(scene: Scene) -> None:
    scene.bridge.steps = 1
    scene.broker.refused = {"homeassistant/device/tflotilla_barn_pi-1/config": "Not authorized"}
    with pytest.raises(BrokerError, match="not all was published: the MQTT broker refuses homeassistant/…"):
        scene.server.serve()

    scene.broker.connected = False
    with pytest.raises(BrokerError, match="went away before all was published"):
        scene.server.serve()


def test_messages_that_were_lost_here_are_said(scene: Scene) -> None:
    scene.broker.dropped = 3
    for _ in range(2):
        scene.server.step(timeout_s=0)

    assert scene.lines == ["3 messages came too fast and were lost"]


@pytest.mark.parametrize("change", [{"name": "attic"}, {"mqtt": MqttConfig(port=1)}])
def test_another_fleet_or_broker_needs_another_start(scene: Scene, change: dict[str, object]) -> None:
    scene.read[0] = replace(scene.fleet, **change)  # type: ignore[arg-type]
    for _ in range(3):
        scene.now[0] += 10
        scene.server.step(timeout_s=0)

    assert {FLEET} == {news.fleet.name for news in scene.bridge.news}
    assert scene.lines == [
        f"{scene.fleet.path} names another fleet or broker now; start the bridge again",
    ]
