"""What a board's device is made of."""

from __future__ import annotations

from typing import Any

import pytest

from tflotilla.host.dashboards.home_assistant import discovery
from tflotilla.host.dashboards.home_assistant.discovery import Shown
from tflotilla.shared.contract import topics

PI = Shown(fleet="barn", board="pi-1", hardware="Raspberry Pi 4", agent_version="0.1.0", window_s=1.0, pictures=True)
ENTITIES = {
    "p50",
    "p99",
    "rate",
    "temperature",
    "throttled",
    "top_label",
    "confidence",
    "agent_version",
    "model_version",
    "update",
    "benchmark",
    "image",
}


def components(shown: Shown) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = discovery.config(shown)["components"]
    return found


def test_a_board_is_one_device_with_all_that_is_asked_for() -> None:
    assert set(components(PI)) == ENTITIES


def test_ids_depend_on_the_names_alone() -> None:
    """What Home Assistant remembers of an entity (its name, its room, its history) hangs on them."""
    bare = Shown(fleet="barn", board="pi-1")
    ids = {name: component["unique_id"] for name, component in components(bare).items()}

    assert ids == {name: f"tflotilla_barn_pi-1_{name}" for name in ENTITIES - {"image"}}
    assert ids.items() <= {name: component["unique_id"] for name, component in components(PI).items()}.items()


@pytest.mark.parametrize(("fleet", "board"), [("barn", "pi-1"), ("a-b", "c"), ("a", "b-c"), ("0", "0")])
def test_an_id_is_of_one_board_of_one_fleet(fleet: str, board: str) -> None:
    identity = discovery.device_id(fleet, board)

    assert discovery.board_of(fleet, identity) == board
    assert discovery.board_of("another", identity) is None
    assert discovery.board_of("a" if fleet == "a-b" else "a-b", identity) is None


@pytest.mark.parametrize("text", ["", "tflotilla_barn_", "tflotilla_barn", "zigbee_barn_pi-1", "tflotilla_barn_a_b"])
def test_what_others_announced_is_no_board_of_ours(text: str) -> None:
    assert discovery.board_of("barn", text) is None


def test_the_device_is_available_as_the_board_or_its_last_will_says() -> None:
    document = discovery.config(PI)

    assert document["availability_topic"] == "tflotilla/barn/pi-1/availability"
    assert (document["payload_available"], document["payload_not_available"]) == ("online", "offline")


def test_nothing_but_the_benchmark_can_be_asked_of_a_board() -> None:
    """MQTT carries no authority to deploy."""
    asking = {name: part["command_topic"] for name, part in components(PI).items() if "command_topic" in part}

    assert asking == {"benchmark": topics.command("barn", "pi-1", "benchmark")}
    assert not {key for part in components(PI).values() for key in part} & {"payload_install", "retain"}


def test_a_board_without_thumbnails_has_no_picture() -> None:
    assert "image" not in components(Shown(fleet="barn", board="pi-1"))


@pytest.mark.parametrize(
    ("window_s", "expiry_s"), [(None, 30), (0.05, 30), (1.0, 30), (10.0, 50), (60.5, 303), (1e308, 18000), (-5.0, 30)]
)
def test_figures_expire_after_some_windows(window_s: float | None, expiry_s: int) -> None:
    shown = Shown(fleet="barn", board="pi-1", window_s=window_s)
    figures = [part for part in components(shown).values() if part.get("state_topic", "").endswith("/metrics")]

    assert len(figures) == 7
    assert {part["expire_after"] for part in figures} == {expiry_s}


def test_what_is_not_known_of_a_device_is_left_out() -> None:
    assert discovery.config(Shown(fleet="barn", board="pi-1"))["device"] == {
        "identifiers": ["tflotilla_barn_pi-1"],
        "connections": [],
        "name": "pi-1",
        "manufacturer": "tflotilla",
    }


def test_the_label_area_suggests_a_room() -> None:
    shown = Shown(fleet="barn", board="pi-1", area="Kitchen")

    assert discovery.config(shown)["device"]["suggested_area"] == "Kitchen"
