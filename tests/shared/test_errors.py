"""One tree of errors, each with an exit code, and they travel."""

from __future__ import annotations

import re

import pytest

from tflotilla.shared.contract import errors
from tflotilla.shared.contract.errors import TflotillaError, from_wire, to_wire

ALL = sorted(errors._BY_NAME.values(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_that_travels_arrives_as_it_left(kind: type[TflotillaError]) -> None:
    wire = to_wire(kind("tray 3: 猫 isn't allowed"))
    arrived = from_wire(wire["error"], wire["message"])

    assert type(arrived) is kind
    assert str(arrived) == "tray 3: 猫 isn't allowed"
    assert arrived.exit_code == kind.exit_code


def test_an_error_of_a_newer_peer_arrives_as_the_root() -> None:
    assert type(from_wire("InventedError", "text")) is TflotillaError


def test_an_error_defined_elsewhere_leaves_as_the_root() -> None:
    class PrivateError(errors.ModelError):
        pass

    assert to_wire(PrivateError("text"))["error"] == "TflotillaError"


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = set(re.findall(r"\w+Error", errors.__doc__ or ""))

    assert drawn == {kind.__name__ for kind in ALL}


def test_every_class_of_exit_code_has_one_root_and_none_is_taken_by_the_shell() -> None:
    direct = TflotillaError.__subclasses__()
    ours = [kind for kind in direct if kind.__module__ == errors.__name__]
    codes = [kind.exit_code for kind in ours]

    assert sorted(codes) == sorted(set(codes))
    assert not set(codes) & {0, 1, 70, 126, 127, 130}
    assert all(child.exit_code == kind.exit_code for kind in ours for child in ALL if issubclass(child, kind))
