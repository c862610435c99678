"""Values to JSON and back, and errors that name the place."""

from __future__ import annotations

import enum
import inspect
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.shared.random_values import value_of
from tflotilla.shared.contract import (
    agent_config,
    board,
    codec,
    deployment,
    manifest,
    messages,
    processing,
    session,
    tensors,
)
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    import types

_MODULES: tuple[types.ModuleType, ...] = (
    agent_config,
    board,
    deployment,
    manifest,
    messages,
    processing,
    session,
    tensors,
)


def _values() -> list[type]:
    """Every dataclass of the contract; envelopes are generic and have tests of their own."""
    found = {
        kind
        for module in _MODULES
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if is_dataclass(kind) and kind.__module__ == module.__name__ and kind is not messages.Message
    }
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


@pytest.mark.parametrize("kind", _values(), ids=lambda kind: kind.__qualname__)
def test_decoding_undoes_encoding_for_every_value_of_the_contract(kind: type) -> None:
    rng = random.Random(kind.__qualname__)  # noqa: S311 - a test wants the same values each time
    for _ in range(60):
        value: object = value_of(kind, rng)
        data = codec.canonical_json(value)
        again: object = codec.decode(kind, codec.parse_json(data, "x.json"), "x.json", strict=True)

        assert again == value
        assert codec.canonical_json(again) == data


def test_equal_values_give_equal_bytes_whatever_the_order_of_their_keys() -> None:
    assert codec.canonical_json({"b": 1, "a": {"d": 2, "c": 3}}) == b'{"a":{"c":3,"d":2},"b":1}'
    assert codec.canonical_json({"a": {"c": 3, "d": 2}, "b": 1}) == b'{"a":{"c":3,"d":2},"b":1}'


def test_text_stays_readable_in_the_file() -> None:
    assert codec.canonical_json({"name": "Käse 猫"}) == '{"name":"Käse 猫"}'.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_are_never_written(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.canonical_json({"x": number})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": NaN}', "NaN is not allowed"),
        (b'{"a": -Infinity}', "-Infinity is not allowed"),
        (b'{"a": 1, "a": 2}', "a key stands twice"),
        (b'{"a": {"b": 1, "b": 1}}', "a key stands twice"),
        (b'{"a": 1', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\x89PNG\r\n", "not valid JSON"),
    ],
)
def test_what_is_no_strict_json_is_refused_naming_the_document(data: bytes, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        codec.parse_json(data, "manifest.json")

    assert str(caught.value).startswith("manifest.json: ")
    assert said in str(caught.value)


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    number: float = 0.0
    whole: int = 0
    on: bool = False
    kind: Literal["a", "b"] = "a"
    size: Size = Size.SMALL

    def __post_init__(self) -> None:
        if self.whole > 100:
            message = "whole must be at most 100"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf]
    maybe: str | None = None
    anything: Any = None


def _tree(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"leaves": [], "by_name": {}} | changed


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "t.json: [] is not allowed here; expected a table of keys and values"),
        ({"leaves": []}, "t.json: key 'by_name' is missing"),
        (_tree(leaves={}), "t.json: leaves: {} is not allowed here; expected a list"),
        (
            _tree(leaves=[{}, {"whole": "1"}]),
            't.json: leaves[1].whole: "1" is not allowed here; expected a whole number',
        ),
        (_tree(leaves=[{"whole": 1.0}]), "t.json: leaves[0].whole: 1.0 is not allowed here; expected a whole number"),
        (_tree(leaves=[{"whole": True}]), "t.json: leaves[0].whole: true is not allowed here; expected a whole number"),
        (_tree(leaves=[{"number": True}]), "t.json: leaves[0].number: true is not allowed here; expected a number"),
        (_tree(leaves=[{"on": 1}]), "t.json: leaves[0].on: 1 is not allowed here; expected true or false"),
        (_tree(leaves=[{"kind": "c"}]), 't.json: leaves[0].kind: "c" is not allowed here; expected one of "a", "b"'),
        (
            _tree(leaves=[{"size": "huge"}]),
            't.json: leaves[0].size: "huge" is not allowed here; expected one of "small", "large"',
        ),
        (_tree(leaves=[None]), "t.json: leaves[0]: null is not allowed here; expected a table of keys and values"),
        (_tree(leaves=[{"whole": 101}]), "t.json: leaves[0]: whole must be at most 100"),
        (
            _tree(by_name={"x y": {"on": None}}),
            "t.json: by_name.x y.on: null is not allowed here; expected true or false",
        ),
        (_tree(by_name=[]), "t.json: by_name: [] is not allowed here; expected a table of keys and values"),
        (_tree(maybe=3), "t.json: maybe: 3 is not allowed here; expected a text"),
    ],
)
def test_an_error_names_the_place_and_what_is_allowed_there(document: object, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        codec.decode(Tree, document, "t.json")

    assert str(caught.value) == said


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(ContractError) as caught:
        codec.decode(Leaf, {"whole": "x" * 1000}, "t.json")

    assert len(str(caught.value)) < 150


def test_a_whole_number_is_taken_where_a_number_is_asked_for_and_not_the_other_way_round() -> None:
    leaf = codec.decode(Leaf, {"number": 2}, "t.json")

    assert (leaf.number, type(leaf.number)) == (2.0, float)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ContractError, match="expected a finite number"):
        codec.decode(Leaf, json.loads('{"number": 1e999}'), "t.json")


def test_unknown_keys_of_a_newer_writer_are_ignored() -> None:
    assert codec.decode(Leaf, {"whole": 3, "invented": {}}, "t.json") == Leaf(whole=3)


def test_strictly_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ContractError, match=r"t\.toml: unknown key 'numbr'; did you mean 'number'\?"):
        codec.decode(Leaf, {"numbr": 1}, "t.toml", strict=True)
    with pytest.raises(ContractError, match="unknown key 'zzz'; allowed are kind, number, on, size, whole"):
        codec.decode(Leaf, {"zzz": 1}, "t.toml", strict=True)
    with pytest.raises(ContractError, match=r"unknown key 'hole'; did you mean 'whole'\?"):
        codec.decode(Tree, _tree(leaves=[{"hole": 1}]), "t.toml", strict=True)
