"""`tflotilla demo` from the first line to the last, as `make demo` runs it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.commands import Person
from tflotilla.host.lab import lab

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """What the demo printed, its facts, and the home of whoever ran it."""
    folder = tmp_path_factory.mktemp("demo")
    ran = Person(folder=folder, home=folder).types("demo", "--name", f"t{os.getpid()}", "--json", "facts.json")
    return ran.out, json.loads((folder / "facts.json").read_text()), folder


def test_every_scheme_is_shown_with_size_and_accuracy(told: tuple[str, dict[str, Any], Path]) -> None:
    _, facts, _ = told

    schemes = [variant["scheme"] for variant in facts["variants"]]
    assert ["float32", "float16", "dynamic_range", "int8", "int8_io_uint8"] == schemes
    assert all(variant["accuracy"] > 0.9 for variant in facts["variants"])
    assert facts["variants"][-1]["size_bytes"] < facts["variants"][0]["size_bytes"] / 3


def test_every_board_takes_the_release_by_the_whole_way(told: tuple[str, dict[str, Any], Path]) -> None:
    _, facts, _ = told

    way = ["transferring", "verifying", "probing", "switching", "confirming", "succeeded"]
    assert [way] * 3 == list(facts["deployment"]["boards"].values())
    assert facts["deployment"]["bytes_when_present"] < 4096


def test_the_boards_are_right_about_the_digits(told: tuple[str, dict[str, Any], Path]) -> None:
    _, facts, _ = told

    assert facts["telemetry"]["predictions"] > 0
    assert facts["telemetry"]["accuracy"] > 0.9
    assert facts["telemetry"]["missing"] == 0


def test_bad_releases_are_refused_for_three_reasons_and_never_serve(told: tuple[str, dict[str, Any], Path]) -> None:
    out, facts, _ = told

    bad = facts["bad_releases"]
    assert ["IncompatibleError", "VerificationError", "ProbeError"] == [each["error"] for each in bad["tried"]]
    assert "FULLY_CONNECTED version" in bad["tried"][0]["message"]
    assert bad["by_a_bad_release"] == 0
    assert bad["predictions_meanwhile"] == bad["by_the_old_release"] > 0
    assert "nothing was sent" in out


def test_the_second_release_comes_back_off(told: tuple[str, dict[str, Any], Path]) -> None:
    _, facts, _ = told

    assert facts["second_release"]["rolled_back_to"] == facts["bundle"]["digest"]


def test_nothing_of_it_is_left(told: tuple[str, dict[str, Any], Path]) -> None:
    _, _, home = told

    assert lab.list_labs(home=home / ".local/state/tflotilla/labs") == ()
