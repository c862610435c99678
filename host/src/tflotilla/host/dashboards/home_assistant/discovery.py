"""What Home Assistant is told of one board: one device with its entities, as its MQTT discovery has it.

Pure: `config` makes the document of `<prefix>/device/<id>/config` (device-based discovery, Home Assistant 2024.11 and
later). The entities read the board's own topics, so the figures go on when the bridge doesn't run.

Rules it keeps: ids depend on the fleet's and the board's name alone and never change; what a board doesn't know is
`unknown` in Home Assistant, never 0; no entity deploys anything: `update` has no command.
What it does NOT do: publish, or say what stands on the topics of `tflotilla-host` (`updates`, the bridge).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host import __version__
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Mapping

_ORIGIN = "tflotilla"
#: No name of a fleet or a board holds it, so an id is made in one way only.
_BETWEEN = "_"
#: Who asks, in requests that the button makes.
ASKER = "home-assistant"
#: A figure that is older than so many windows is no longer shown.
_WINDOWS_UNTIL_EXPIRED = 5
_LEAST_EXPIRY_S = 30
#: agent.toml allows no longer window; a board may say anything.
_LONGEST_WINDOW_S = 3600.0
#: Home Assistant keeps no longer states.
_LONGEST_STATE = 255

_NOTHING = "none"
_OF_TOTAL = (
    "{{% set stage = (value_json.stages | default({{}})).get('total') %}}"
    "{{{{ (stage.{figure} / 1000000) | round(4) if stage else none }}}}"
)
_RATE = "{{ (value_json.count / value_json.window_s) | round(2) if value_json.window_s > 0 else none }}"
_TEMPERATURE = "{{ value_json.temperature_c | default(none) }}"
_THROTTLED = (
    "{% set throttled = value_json.throttled | default(none) %}"
    "{{ none if throttled is none else 'ON' if throttled else 'OFF' }}"
)
_TOP_LABEL = (
    "{% set first = value_json.labels | sort(attribute='count', reverse=true) | first | default(none) %}"
    f"{{{{ first.label[:{_LONGEST_STATE}] if first else none }}}}"
)
#: The mean score of all winners: that of each label, by how often it won.
_CONFIDENCE = (
    "{% set ns = namespace(count=0, score=0) %}"
    "{% for each in value_json.labels %}"
    "{% set ns.count = ns.count + each.count %}{% set ns.score = ns.score + each.count * each.mean_score %}"
    "{% endfor %}"
    "{{ (100 * ns.score / ns.count) | round(1) if ns.count else none }}"
)
_MODEL = (
    "{% set serving = value_json.serving | default(none) %}"
    f"{{{{ (serving.name ~ '-' ~ serving.version)[:{_LONGEST_STATE}] if serving else '{_NOTHING}' }}}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A board as far as its device depends on it; None is not known (yet)."""

    fleet: str
    board: str
    #: `/proc/device-tree/model`, or the architecture.
    hardware: str | None = None
    agent_version: str | None = None
    window_s: float | None = None
    #: Its label `area`: where Home Assistant suggests to put it.
    area: str | None = None
    #: Whether it sends thumbnails.
    pictures: bool = False


def device_id(fleet: str, board: str) -> str:
    """Return the id of a board's device.

    Law: `board_of(fleet, device_id(fleet, board)) == board`.
    """
    return _BETWEEN.join((_ORIGIN, fleet, board))


def board_of(fleet: str, text: str) -> str | None:
    """Return the board of an id of this fleet, None for what isn't one."""
    head = _BETWEEN.join((_ORIGIN, fleet, ""))
    board = text.removeprefix(head)
    return board if text.startswith(head) and board and _BETWEEN not in board else None


def topic(prefix: str, fleet: str, board: str) -> str:
    """Return where a board's device is announced."""
    return f"{prefix}/device/{device_id(fleet, board)}/config"


def config(shown: Shown) -> dict[str, Any]:
    """Return the document that announces a board."""
    fleet, board = shown.fleet, shown.board
    identity = device_id(fleet, board)
    device = {
        "identifiers": [identity],
        # Home Assistant fills it in by itself; but while it loads a platform it may judge a device by half a schema,
        # and then misses it (seen with 2024.12).
        "connections": [],
        "name": board,
        "manufacturer": _ORIGIN,
        "model": shown.hardware,
        "sw_version": shown.agent_version,
        "suggested_area": shown.area,
    }
    components = _components(shown)
    return {
        "device": {key: value for key, value in device.items() if value is not None},
        "origin": {"name": _ORIGIN, "sw_version": __version__},
        "availability_topic": topics.topic(fleet, board, "availability"),
        "availability_template": "{{ value_json.status }}",
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 1,
        "components": {
            name: {**component, "unique_id": f"{identity}{_BETWEEN}{name}"} for name, component in components.items()
        },
    }


def _components(shown: Shown) -> Mapping[str, dict[str, Any]]:
    fleet, board = shown.fleet, shown.board
    components = {
        **_figures(shown),
        "agent_version": {
            **_diagnostic(fleet, board, "Agent version"),
            "value_template": "{{ value_json.agent_version }}",
        },
        "model_version": {**_diagnostic(fleet, board, "Model version"), "value_template": _MODEL},
        "update": {
            "platform": "update",
            "name": "Model",
            "state_topic": topics.host_topic(fleet, board, "update"),
        },
        "benchmark": {
            "platform": "button",
            "name": "Benchmark",
            "icon": "mdi:speedometer",
            "command_topic": topics.command(fleet, board, "benchmark"),
            "command_template": _request(board),
        },
    }
    if shown.pictures:
        components["image"] = {
            "platform": "image",
            "name": "Last prediction",
            "image_topic": topics.host_topic(fleet, board, "image"),
            "content_type": "image/jpeg",
        }
    return components


def _figures(shown: Shown) -> dict[str, dict[str, Any]]:
    """Return the sensors of the board's windows."""
    common = {
        "state_topic": topics.topic(shown.fleet, shown.board, "metrics"),
        "expire_after": _expiry_s(shown.window_s),
    }
    measured = {**common, "platform": "sensor", "state_class": "measurement"}
    latency = {
        **measured,
        "device_class": "duration",
        "unit_of_measurement": "ms",
        "suggested_display_precision": 2,
    }
    return {
        "p50": {**latency, "name": "Latency p50", "value_template": _OF_TOTAL.format(figure="p50_ns")},
        "p99": {**latency, "name": "Latency p99", "value_template": _OF_TOTAL.format(figure="p99_ns")},
        "rate": {
            **measured,
            "name": "Inference rate",
            "icon": "mdi:pulse",
            "unit_of_measurement": "1/s",
            "suggested_display_precision": 1,
            "value_template": _RATE,
        },
        "temperature": {
            **measured,
            "name": "Temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "suggested_display_precision": 1,
            "value_template": _TEMPERATURE,
        },
        "throttled": {
            **common,
            "platform": "binary_sensor",
            "name": "Throttled",
            "device_class": "problem",
            "value_template": _THROTTLED,
        },
        "top_label": {
            **common,
            "platform": "sensor",
            "name": "Top label",
            "icon": "mdi:label",
            "value_template": _TOP_LABEL,
        },
        "confidence": {
            **measured,
            "name": "Confidence",
            "icon": "mdi:percent",
            "unit_of_measurement": "%",
            "suggested_display_precision": 1,
            "value_template": _CONFIDENCE,
        },
    }


def _diagnostic(fleet: str, board: str, name: str) -> dict[str, Any]:
    """Return a sensor of the board's retained state, which doesn't expire: it holds until it is said anew."""
    return {
        "platform": "sensor",
        "name": name,
        "entity_category": "diagnostic",
        "state_topic": topics.topic(fleet, board, "state"),
    }


def _expiry_s(window_s: float | None) -> int:
    return max(_LEAST_EXPIRY_S, math.ceil(_WINDOWS_UNTIL_EXPIRED * min(window_s or 0, _LONGEST_WINDOW_S)))


def _request(board: str) -> str:
    """Return the template of a BenchmarkRequest; with one id twice the agent would take it for the same one."""
    return (
        "{% set at = now().timestamp() %}"
        f'{{"schema": {messages.SCHEMA}, "board": "{board}", "boot": "{ASKER}", "seq": 0, "bundle": null, '
        f'"time": {{{{ at }}}}, "request": "{ASKER}-{{{{ (at * 1000) | int }}}}"}}'
    )
