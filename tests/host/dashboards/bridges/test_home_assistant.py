"""The bridge into Home Assistant, stepped by hand: what it announces, changes and takes back."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.dashboards.bridges.fake_broker import FLEET, NOW, FakeBroker, received
from tests.host.rollouts import made
from tests.host.telemetry.fake_board import metrics, state
from tflotilla.host.dashboards.bridges import Setting
from tflotilla.host.dashboards.bridges.home_assistant import HomeAssistant, open_bridge
from tflotilla.host.dashboards.bridges.serving import Server
from tflotilla.host.dashboards.home_assistant.wanting import Wants
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.rollouts.journal import database, register
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = "homeassistant/device/tflotilla_barn_{}/config"
UPDATE = "tflotilla-host/barn/{}/update"
IMAGE = "tflotilla-host/barn/{}/image"
JPEG = b"\xff\xd8\xff\xe0 a very small picture"
BORN = Received(topic="homeassistant/status", payload=b"online", at=NOW)


def thumbnail(jpeg: bytes = JPEG) -> messages.Thumbnail:
    return messages.Thumbnail(item="7.png", time=NOW, jpeg=base64.b64encode(jpeg).decode(), top=())


@dataclass(kw_only=True)
class Home:
    """A bridge on a broker that is a list, with a clock that a test turns."""

    path: Path
    now: float = NOW
    broker: FakeBroker = field(default_factory=FakeBroker)
    lines: list[str] = field(default_factory=list)
    server: Any = None
    bridge: Any = None

    def open(self, *, unknown: bool = False, once: bool = False) -> None:
        fleet = Fleet.load(self.path)
        live = Live(fleet.name, known=fleet.boards)
        setting = Setting(fleet=fleet, live=live, unknown=unknown, tell=self.lines.append)
        wants = Wants(self._journal, clock=lambda: self.now, tell=self.lines.append)
        self.bridge = HomeAssistant(setting, prefix="homeassistant", once=once, wants=wants)
        self.server = Server(
            self.bridge,
            self.broker,
            live,
            fleet=fleet,
            reload=lambda: Fleet.load(self.path),
            clock=lambda: self.now,
            tell=self.lines.append,
        )

    def hear(self, *said: Received, after_s: float = 0.25) -> dict[str, bytes]:
        """Let time pass and messages come in; return what was published then, by topic."""
        self.now += after_s
        before = len(self.broker.sent)
        self.broker.waiting.extend(said)
        self.server.step(timeout_s=0)
        return {topic: payload for topic, payload, _ in self.broker.sent[before:]}

    def settle(self, *said: Received) -> dict[str, bytes]:
        """Begin: what is retained comes in, then boards are announced."""
        self.hear(*said)
        return self.hear(after_s=2)

    def retained(self, topic: str) -> Any:  # noqa: ANN401 - a JSON document
        return json.loads(self.broker.retained[topic])

    def _journal(self) -> Any:  # noqa: ANN401 - the port
        return database.of_fleet(Fleet.load(self.path))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a bridge of a fleet of pi-0 and pi-1."""
    path = tmp_path / "fleet.toml"
    fleet = Fleet.create(path, name=FLEET)
    for number in (0, 1):
        fleet = fleet.add(f"pi-{number}", BoardEntry(host="127.0.0.1"), None)
    made_home = Home(path=path)
    made_home.open()
    yield made_home
    made_home.bridge.close()


def test_every_board_of_the_inventory_is_announced_once_and_retained(home: Home) -> None:
    assert home.hear() == {}
    announced = home.hear(after_s=2)

    assert set(announced) == {CONFIG.format("pi-0"), CONFIG.format("pi-1")}
    assert all(retained for _, _, retained in home.broker.sent)
    assert home.hear(after_s=60) == {}
    assert home.lines == ["announcing 2 boards below homeassistant/device/"]


def test_what_the_broker_retains_of_boards_is_in_the_first_announcement(home: Home) -> None:
    home.settle(received("pi-0", "state", state()))

    device = home.retained(CONFIG.format("pi-0"))["device"]
    assert (device["model"], device["sw_version"]) == ("Raspberry Pi 4 Model B Rev 1.4", "0.1.0")
    assert home.retained(UPDATE.format("pi-0"))["installed_version"] == "digits-1.0.0"
    assert UPDATE.format("pi-1") not in home.broker.retained


def test_figures_that_come_in_every_second_cost_nothing(home: Home) -> None:
    home.settle(received("pi-0", "metrics", metrics(), seq=1))

    said = [home.hear(received("pi-0", "metrics", metrics(), seq=number)) for number in range(2, 20)]

    assert said == [{}] * 18


def test_a_board_with_long_windows_is_announced_with_a_later_expiry(home: Home) -> None:
    home.settle()
    slow = messages.Metrics(window_s=60, count=0, errors=0, dropped=0, stages={}, labels=(), rss_bytes=1)
    changed = home.hear(received("pi-0", "metrics", slow, seq=1))

    assert set(changed) == {CONFIG.format("pi-0")}
    assert home.retained(CONFIG.format("pi-0"))["components"]["p99"]["expire_after"] == 300


def test_everything_is_said_again_when_home_assistant_is_born(home: Home) -> None:
    home.settle(received("pi-0", "state", state()))

    assert set(home.hear(BORN)) == {CONFIG.format("pi-0"), CONFIG.format("pi-1"), UPDATE.format("pi-0")}


def test_everything_is_said_again_when_the_broker_comes_back(home: Home) -> None:
    home.settle(received("pi-0", "state", state()))
    home.broker.interrupt()

    assert set(home.hear()) == {CONFIG.format("pi-0"), CONFIG.format("pi-1"), UPDATE.format("pi-0")}


def test_what_changes_while_the_broker_is_away_is_said_when_it_is_back(home: Home) -> None:
    home.settle(received("pi-0", "state", state()))
    home.broker.connected = False
    newer = state(serving=messages.ServedBundle(digest="ef" * 32, name="digits", version="9.0.0", release=9))
    assert home.hear(received("pi-0", "state", newer)) == {}
    home.broker.connected = True
    home.broker.interrupt()
    home.hear()

    assert home.retained(UPDATE.format("pi-0"))["installed_version"] == "digits-9.0.0"
    assert home.lines[1:] == ["the broker is away; trying again", "the broker is back"]


def test_a_board_that_leaves_the_fleet_leaves_home_assistant(home: Home) -> None:
    home.settle(received("pi-0", "state", state()), received("pi-0", "thumbnail", thumbnail()))
    Fleet.load(home.path).remove("pi-0")
    gone = home.hear(after_s=10)

    assert gone == {CONFIG.format("pi-0"): b"", UPDATE.format("pi-0"): b"", IMAGE.format("pi-0"): b""}
    assert set(home.broker.retained) == {CONFIG.format("pi-1")}


def test_a_board_that_still_talks_after_it_was_taken_out_stays_out(home: Home) -> None:
    home.settle(received("pi-0", "state", state()))
    Fleet.load(home.path).remove("pi-0")
    home.hear(after_s=10)

    assert home.hear(received("pi-0", "state", state())) == {}


def test_a_board_that_left_while_no_bridge_ran_is_taken_out_too(home: Home) -> None:
    """What an earlier bridge retained tells of it."""
    left = Received(topic=CONFIG.format("pi-9"), payload=b"{}", at=NOW, retained=True)
    said = home.settle(left)

    assert {topic: payload for topic, payload in said.items() if "pi-9" in topic} == {
        CONFIG.format("pi-9"): b"",
        UPDATE.format("pi-9"): b"",
        IMAGE.format("pi-9"): b"",
    }


@pytest.mark.parametrize(
    "topic",
    [
        "homeassistant/device/zigbee_1/config",
        "homeassistant/device/tflotilla_another_pi-9/config",
        "homeassistant/device/tflotilla_barn_pi-0/config",
        "tflotilla-host/another/pi-9/image",
        "tflotilla-host/barn/pi-0/image",
    ],
)
def test_what_others_announced_is_left_alone(home: Home, topic: str) -> None:
    said = home.settle(Received(topic=topic, payload=b"{}", at=NOW, retained=True))

    assert b"" not in said.values()


def test_a_board_that_joins_the_fleet_is_announced(home: Home) -> None:
    home.settle()
    Fleet.load(home.path).add("pi-2", BoardEntry(host="127.0.0.1", labels={"area": "Kitchen"}), None)

    assert set(home.hear(after_s=10)) == {CONFIG.format("pi-2")}
    assert home.retained(CONFIG.format("pi-2"))["device"]["suggested_area"] == "Kitchen"


def test_boards_that_fleet_toml_does_not_know_are_not_shown(home: Home) -> None:
    assert set(home.settle(received("stranger", "state", state()))) == {CONFIG.format("pi-0"), CONFIG.format("pi-1")}


def test_unless_they_are_asked_for(home: Home) -> None:
    home.open(unknown=True)
    left = Received(topic=CONFIG.format("pi-9"), payload=b"{}", at=NOW, retained=True)
    home.settle(received("stranger", "state", state()), left)

    assert CONFIG.format("stranger") in home.broker.retained
    assert b"" not in {payload for _, payload, _ in home.broker.sent}


def test_a_fleet_toml_that_cannot_be_read_changes_nothing(home: Home) -> None:
    home.settle()
    text = home.path.read_text()
    home.path.write_text("name = ")
    assert home.hear(after_s=10) == {}
    assert home.hear(after_s=10) == {}
    home.path.write_text(text)
    home.hear(after_s=10)

    assert home.broker.retained.keys() == {CONFIG.format("pi-0"), CONFIG.format("pi-1")}
    assert len([line for line in home.lines if "going on with what it said before" in line]) == 1


def test_a_picture_comes_as_a_jpeg_with_an_entity_of_its_own(home: Home) -> None:
    home.settle()
    said = home.hear(received("pi-0", "thumbnail", thumbnail()))

    assert said[IMAGE.format("pi-0")] == JPEG
    assert home.retained(CONFIG.format("pi-0"))["components"]["image"]["image_topic"] == IMAGE.format("pi-0")
    assert home.hear(received("pi-0", "thumbnail", thumbnail())) == {}


@pytest.mark.parametrize("jpeg", [b"<svg onload=alert(1)>", b"", b"\xff\xd8\xff" + b"x" * (1 << 20)])
def test_what_is_no_small_jpeg_is_not_shown(home: Home, jpeg: bytes) -> None:
    home.settle()

    assert IMAGE.format("pi-0") not in home.hear(received("pi-0", "thumbnail", thumbnail(jpeg)))


def test_a_picture_of_an_earlier_run_keeps_its_entity(home: Home) -> None:
    home.settle(Received(topic=IMAGE.format("pi-0"), payload=JPEG, at=NOW, retained=True))

    assert "image" in home.retained(CONFIG.format("pi-0"))["components"]


def test_the_bundle_that_a_rollout_wants_is_the_newer_one(home: Home) -> None:
    older = messages.ServedBundle(digest="cd" * 32, name="digits", version="1.0.0", release=1)
    home.settle(received("pi-0", "state", state(serving=older)))
    journal = database.of_fleet(Fleet.load(home.path))
    register.claim(journal, made.plan(boards=2), by="anna@desk")
    journal.close()
    home.hear(after_s=10)

    shown = home.retained(UPDATE.format("pi-0"))
    assert (shown["installed_version"], shown["latest_version"]) == ("digits-1.0.0", "digits-2.0.0")
    assert shown["release_summary"] == "wanted by rollout digits-2.0.0-7f3a"


def test_a_deployment_is_followed_through_its_states(home: Home) -> None:
    home.settle(received("pi-0", "state", state()))
    percent = []
    for progress in (DeploymentState.TRANSFERRING, DeploymentState.PROBING, DeploymentState.SUCCEEDED):
        status = DeploymentStatus(deployment="d", candidate="ef" * 32, title="digits-2.0.0", state=progress)
        home.hear(received("pi-0", "deployment", status))
        shown = home.retained(UPDATE.format("pi-0"))
        percent.append((shown["in_progress"], shown["update_percentage"]))

    assert percent == [(True, 10), (True, 55), (False, None)]


def test_a_journal_that_cannot_be_read_is_said_once() -> None:
    def closed() -> Any:  # noqa: ANN401 - the port
        message = "journal: no space left"
        raise InputError(message)

    lines: list[str] = []
    now = [0.0]
    wants = Wants(closed, clock=lambda: now[0], tell=lines.append)
    for _ in range(3):
        assert wants.look() == frozenset()
        now[0] += 60

    assert lines == ["journal: no space left; updates show what was known before"]


def test_once_it_has_announced_it_is_done(home: Home) -> None:
    home.open(once=True)
    home.hear()
    assert home.bridge.done is False
    home.hear(after_s=10)

    assert home.bridge.done is True
    assert CONFIG.format("pi-1") in home.broker.retained


@pytest.mark.parametrize("prefix", ["", "home/#", "/home", "home/", "a b", "+"])
def test_a_prefix_that_is_no_topic_is_refused(home: Home, prefix: str) -> None:
    fleet = Fleet.load(home.path)
    options = {"discovery-prefix": prefix, "once": False}

    with pytest.raises(UsageError, match="--discovery-prefix"):
        open_bridge(Setting(fleet=fleet, live=Live(fleet.name), options=options))
