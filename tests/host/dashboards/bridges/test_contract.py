"""What every bridge must keep, whichever tool it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import brokers
from tests.host.dashboards.bridges.fake_broker import FLEET, NOW, received
from tests.host.telemetry.fake_board import metrics, predictions, state
from tflotilla.host.dashboards import bridges
from tflotilla.host.dashboards.bridges import News, Setting
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What can't be left at its default in a test.
OPTIONS: dict[str, dict[str, Any]] = {"prometheus": {"listen": f"127.0.0.1:{brokers.free_port()}"}}
HOSTILE = 'x"} 1\n# {{ states }} \x00\ud7ff' * 20


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.create(tmp_path / "fleet.toml", name=FLEET).add("pi-1", BoardEntry(host="127.0.0.1"), None)


@pytest.fixture(params=list(bridges.BRIDGES))
def opened(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[tuple[bridges.Bridge, Live]]:
    """Give each bridge with the fleet that it sees."""
    module = bridges.module(request.param)
    live = Live(fleet.name, known=fleet.boards)
    options = {each.name: each.default for each in module.OPTIONS} | OPTIONS.get(request.param, {})
    bridge: bridges.Bridge = module.open_bridge(Setting(fleet=fleet, live=live, options=options, unknown=True))
    yield bridge, live
    bridge.close()


def everything() -> list[Received]:
    """Return something of each kind that a board may say, with words that nobody should trust."""
    label = messages.LabelCount(label=HOSTILE, count=1, mean_score=0.5)
    odd = messages.Metrics(
        window_s=0, count=1, errors=2, dropped=3, stages={}, labels=(label,), rss_bytes=0, temperature_c=-300.0
    )
    return [
        received("pi-1", "availability", messages.Availability(status="online")),
        received("pi-1", "state", state()),
        received("pi-1", "state", state(serving=None, runtime=None, problem=HOSTILE)),
        received("pi-1", "metrics", metrics(), seq=1),
        received("pi-1", "metrics", odd, seq=2),
        received("pi-1", "predictions", predictions(NOW, label=HOSTILE), seq=3),
        received("pi-1", "thumbnail", messages.Thumbnail(item=HOSTILE, time=NOW, jpeg="no base64", top=())),
        received("pi-1", "event", messages.Event(level="error", kind=HOSTILE, message=HOSTILE), seq=4),
        received("stranger", "metrics", metrics(), seq=1),
        received("pi-1", "availability", messages.Availability(status="offline")),
    ]


def test_no_word_of_a_board_stops_a_bridge(opened: tuple[bridges.Bridge, Live], fleet: Fleet) -> None:
    bridge, live = opened
    said: list[bridges.Publication] = []
    for number, each in enumerate(everything()):
        news = News(now=NOW + number, fleet=fleet, messages=live.hear([each]), begins=number == 0)
        said.extend(bridge.step(news))

    assert [] == [each.topic for each in said if topics.parse(each.topic) is not None]


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"null", b"[" * 10_000, b"x" * 100_000])
def test_garbage_on_other_topics_stops_no_bridge(
    opened: tuple[bridges.Bridge, Live], fleet: Fleet, payload: bytes
) -> None:
    bridge, _ = opened
    places = [each.replace("+", "\ufffd{{}}") for each in bridge.also_hears] + ["", "/", "homeassistant"]
    others = [Received(topic=place, payload=payload, at=NOW) for place in places]

    assert [] == [each for each in bridge.step(News(now=NOW, fleet=fleet, others=others)) if not each.retained]


def test_a_bridge_hears_nothing_of_other_fleets(opened: tuple[bridges.Bridge, Live]) -> None:
    own = {topics.ROOT, topics.HOST_ROOT}
    heard = [each.split("/") for each in opened[0].also_hears]

    assert [] == [levels for levels in heard if levels[0] in own and levels[1:2] != [FLEET]]


def test_a_bridge_serves_on_until_it_is_ended(opened: tuple[bridges.Bridge, Live], fleet: Fleet) -> None:
    bridge, _ = opened
    for number in range(3):
        bridge.step(News(now=NOW + number * 100, fleet=fleet))

    assert bridge.done is False


def test_a_bridge_rests_while_the_broker_is_away(opened: tuple[bridges.Bridge, Live], fleet: Fleet) -> None:
    bridge, _ = opened
    bridge.step(News(now=NOW, fleet=fleet, begins=True))
    bridge.step(News(now=NOW + 100, fleet=fleet))

    assert [] == list(bridge.step(News(now=NOW + 200, fleet=fleet, connected=False)))


@pytest.mark.parametrize("name", list(bridges.BRIDGES))
def test_a_bridge_says_what_it_is_for(name: str) -> None:
    module = bridges.module(name)

    assert module.__doc__
    assert f"Example: tflotilla bridge {name}" in module.HELP
