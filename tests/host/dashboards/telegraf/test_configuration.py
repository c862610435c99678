"""The shipped configuration of Telegraf against real messages.

No Telegraf runs here: no package index that tests may use has one. What can be held against its documentation is: the
options that `mqtt_consumer`, `json_v2` and `topic_parsing` know, and that every path leads to a value of a type that is
converted as asked.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.host.dashboards.prometheus import said
from tests.host.telemetry import fake_board
from tflotilla.device import present
from tflotilla.shared.contract import messages, topics

CONFIGURATION = Path(__file__).resolve().parents[4] / "deploy" / "telegraf" / "telegraf.conf"
#: What the documentation of Telegraf's plugins names.
KNOWN = {
    "input": {
        *("servers", "topics", "topic_tag", "qos", "persistent_session", "client_id", "username", "password"),
        *("data_format", "topic_parsing", "json_v2"),
    },
    "topic_parsing": {"topic", "measurement", "tags", "fields", "types"},
    "json_v2": {"measurement_name", "timestamp_path", "timestamp_format", "field", "tag", "object"},
    "field": {"path", "rename", "type", "optional"},
    "tag": {"path", "rename", "optional"},
    "object": {"path", "tags", "included_keys", "excluded_keys", "renames", "fields", "optional"},
}
#: What becomes of a JSON value whose type is asked for; null is left out.
CONVERTED = {"int": (int, float, bool), "float": (int, float)}


def inputs() -> list[dict[str, Any]]:
    plugins: list[dict[str, Any]] = tomllib.loads(CONFIGURATION.read_text())["inputs"]["mqtt_consumer"]
    return plugins


def parsers(measurement: str) -> dict[str, Any]:
    (found,) = (
        parser for plugin in inputs() for parser in plugin["json_v2"] if parser["measurement_name"] == measurement
    )
    return dict(found)


def message(body: Any) -> dict[str, Any]:  # noqa: ANN401 - any body
    text = messages.Message(board="pi-1", boot="b", seq=1, time=1.5, bundle=said.DIGEST, body=body).to_bytes()
    document: dict[str, Any] = json.loads(text)
    return document


def found(document: Any, path: str) -> Any:  # noqa: ANN401 - whatever stands there
    for key in path.split("."):
        document = document[key]
    return document


FULL = message(said.window(low_confidence=1))


def test_every_option_is_one_that_telegraf_documents() -> None:
    unknown = [
        (kind, set(table) - KNOWN[kind])
        for plugin in inputs()
        for kind, tables in (
            ("input", [plugin]),
            ("topic_parsing", plugin["topic_parsing"]),
            ("json_v2", plugin["json_v2"]),
            *((kind, parser.get(kind, [])) for parser in plugin["json_v2"] for kind in ("field", "tag", "object")),
        )
        for table in tables
        if set(table) - KNOWN[kind]
    ]

    assert [] == unknown


def test_it_hears_channels_of_the_contract_and_takes_fleet_and_board_from_their_topics() -> None:
    for plugin in inputs():
        (topic,) = plugin["topics"]
        (parsing,) = plugin["topic_parsing"]
        address = topics.parse(topic.replace("+", "barn", 1).replace("+", "pi-1", 1))

        assert address is not None
        assert address.channel in topics.CHANNELS
        assert topic == parsing["topic"]
        assert ["_", "fleet", "board", "_"] == parsing["tags"].split("/")


def test_sessions_that_are_kept_have_names_of_their_own_and_delivery_that_waits() -> None:
    kept = [plugin for plugin in inputs() if plugin.get("persistent_session")]

    assert kept
    assert len(kept) == len({plugin["client_id"] for plugin in kept})
    assert {1} == {plugin["qos"] for plugin in kept}


@pytest.mark.parametrize("field", parsers("tflotilla_window")["field"], ids=lambda field: field["path"])
def test_every_path_leads_to_a_number_of_a_window(field: dict[str, Any]) -> None:
    value = found(FULL, field["path"])

    assert isinstance(value, CONVERTED[field["type"]])


def test_what_only_newer_agents_say_is_optional() -> None:
    """A path that isn't there fails the whole message, unless it is optional."""
    older = message(fake_board.metrics())
    for newer in ("unreadable", "scores", "low_confidence", "throttled", "sample"):
        del older[newer]

    for field in parsers("tflotilla_window")["field"]:
        if not field.get("optional"):
            found(older, field["path"])
        if field["path"].startswith("stages."):
            assert field["optional"], "a window without an inference has no stages"


def test_no_two_fields_of_a_window_share_a_name() -> None:
    names = [field.get("rename", field["path"].split(".")[-1]) for field in parsers("tflotilla_window")["field"]]

    assert sorted(set(names)) == sorted(names)


def test_labels_are_points_with_the_figures_of_the_contract() -> None:
    (labels,) = parsers("tflotilla_label")["object"]
    (label,) = found(FULL, labels["path"])

    assert {*labels["tags"], *labels["included_keys"]} == set(label)
    assert set(labels["included_keys"]) == set(labels["fields"])


def test_points_of_different_tables_are_not_multiplied() -> None:
    """json_v2 joins the points of an object with those of every table before it in the same input."""
    assert [1] * len(inputs()) == [len(plugin["json_v2"]) for plugin in inputs()]


def test_all_that_is_flat_becomes_a_number() -> None:
    (whole,) = parsers("tflotilla_flat")["object"]
    body = json.loads(present.flat_body(json.dumps({name: FULL[name] for name in FULL}).encode()))
    envelope = {name: FULL[name] for name in ("schema", "board", "boot", "seq", "time", "bundle")}

    fields = {
        name: value
        for name, value in (envelope | body).items()
        if name not in whole["excluded_keys"] and name not in whole["tags"]
    }

    assert "@this" == whole["path"]
    assert set(body) == set(fields)
    assert {int, float} >= {type(value) for value in fields.values()}


def test_the_time_is_the_board_s_in_seconds() -> None:
    for plugin in inputs():
        (parser,) = plugin["json_v2"]

        assert ("unix", 1.5) == (parser["timestamp_format"], found(FULL, parser["timestamp_path"]))
