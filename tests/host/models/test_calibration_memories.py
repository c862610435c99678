"""What small networks remember of their training, and which calibration pictures are doubted because of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tflotilla.host.models import child
from tflotilla.host.models.calibration import suspicion
from tflotilla.host.models.calibration.evidence import Evidence
from tflotilla.host.models.calibration.suspicion import Kind
from tflotilla.shared.contract import codec

BGR = ",colour=bgr"
#: Network, pictures, the preprocessing it was trained with.
RIGHT = (
    ("unit", "colour", "unit"),
    ("mobilenet", "colour", "mobilenet"),
    ("short", "colour", "unit"),
    ("rescaling", "colour", "raw"),
    ("normalization", "colour", "raw"),
    ("gray", "gray", "unit"),
    ("templates", "quarters", "unit"),
    ("unit", "few", "unit"),
)
#: Network, pictures, a preprocessing it was not trained with, what to try.
WRONG = (
    ("unit", "colour", "raw", "unit"),
    ("unit", "colour", "mobilenet", "unit"),
    ("unit", "colour", "squeezenet", "unit"),
    ("mobilenet", "colour", "unit", "mobilenet"),
    ("mobilenet", "colour", "raw", "mobilenet"),
    ("short", "colour", "raw", "unit"),
    ("rescaling", "colour", "unit", "raw"),
    ("rescaling", "colour", "mobilenet", "raw"),
    ("normalization", "colour", "unit", "raw"),
    ("gray", "gray", "mobilenet", "unit"),
    ("gray", "gray", "raw", "unit"),
    ("unit", "few", "raw", "unit"),
)
EXCHANGED = (
    ("unit", "colour", f"unit{BGR}", "unit"),
    ("mobilenet", "colour", f"mobilenet{BGR}", "mobilenet"),
    ("normalization", "colour", f"raw{BGR}", "raw"),
    ("gray", "gray", "mean=255,std=-255", "unit"),
)
ASKED = [
    *([*case, True] for case in RIGHT),
    *([*case[:3], True] for case in (*WRONG, *EXCHANGED)),
    ["unit", "blue", "unit", True],
    ["unit", "colour", f"unit{BGR}", False],
    ["untrained", "colour", "raw", True],
    ["templates", "quarters", "raw", True],
    ["templates", "quarters", "mean=255,std=-255", True],
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        # The child finds the tests.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
        found: dict[str, Any] = child.call(
            "tests.host.models.made_memories:say",
            {"folder": str(tmp_path_factory.mktemp("memories")), "asked": ASKED},
            doing="making networks",
        )
    return found


def look(said: dict[str, Any], *case: str, files: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = said["looks"][ASKED.index([*case, files])]
    return found


def judged(found: dict[str, Any]) -> tuple[suspicion.Suspicion, ...]:
    return suspicion.judge(codec.decode(Evidence, found["evidence"], "evidence"))


def test_the_nearest_layer_that_remembers_is_found_in_every_form(said: dict[str, Any]) -> None:
    assert [layers[0].rsplit("/", 1)[-1] for name, layers in sorted(said["layers"].items()) if layers] == [
        *("batch_normalization_6", "batch_normalization_1", "normalization_1"),
        *("batch_normalization_4", "batch_normalization_2", "batch_normalization_1"),
    ] or all(layers for name, layers in said["layers"].items() if name not in ("untrained", "templates"))


def test_layers_that_were_never_trained_remember_nothing(said: dict[str, Any]) -> None:
    assert said["layers"]["untrained"] == []
    assert look(said, "untrained", "colour", "raw")["quick"] == []


@pytest.mark.parametrize("case", RIGHT, ids="-".join)
def test_what_a_network_was_trained_with_is_never_doubted(said: dict[str, Any], case: tuple[str, ...]) -> None:
    found = look(said, *case)

    assert found["quick"] == []
    assert judged(found) == ()


@pytest.mark.parametrize("case", WRONG, ids="-".join)
def test_another_range_is_doubted_and_the_right_one_named(said: dict[str, Any], case: tuple[str, ...]) -> None:
    *asked, right = case
    found = look(said, *asked)

    (quick,) = found["quick"]
    (thorough,) = judged(found)
    assert quick == thorough.message
    assert (thorough.kind, thorough.preprocess) == (Kind.RANGE, right)
    assert "can't be what the model was trained on" in quick
    assert quick.endswith(f"try --preprocess {right}")


@pytest.mark.parametrize("case", EXCHANGED, ids="-".join)
def test_exchanged_colours_are_doubted(said: dict[str, Any], case: tuple[str, ...]) -> None:
    *asked, right = case
    found = look(said, *asked)

    (quick,) = found["quick"]
    (thorough,) = judged(found)
    assert (thorough.kind, thorough.preprocess) == (Kind.ORDER, right)
    assert "look exchanged" in quick


def test_pictures_that_are_blue_by_nature_are_not_taken_for_exchanged_ones(said: dict[str, Any]) -> None:
    found = look(said, "unit", "blue", "unit")

    assert found["quick"] == []
    assert judged(found) == ()


def test_in_arrays_the_memory_alone_does_not_decide_on_colours(said: dict[str, Any]) -> None:
    assert look(said, "unit", "colour", f"unit{BGR}", files=False)["quick"] == []


def test_a_classifier_without_memory_is_judged_by_its_answers(said: dict[str, Any]) -> None:
    (too_large,) = look(said, "templates", "quarters", "raw")["quick"]
    (inverted,) = judged(look(said, "templates", "quarters", "mean=255,std=-255"))

    assert "certain beyond all sense" in too_large
    assert too_large.endswith("try --preprocess unit")
    assert (inverted.kind, inverted.preprocess) == (Kind.ORDER, "unit")


def test_few_pictures_are_said_to_be_few(said: dict[str, Any]) -> None:
    (about,) = look(said, "unit", "few", "unit")["about"]

    assert about["message"].startswith("few different calibration samples (2)")
