"""The committed models are what their generator makes; runs where the host's flatbuffer packages are."""

from __future__ import annotations

import pytest

from tests import models_made


@pytest.mark.parametrize("name", sorted(models_made.MADE))
def test_a_committed_model_is_what_its_generator_makes(name: str) -> None:
    pytest.importorskip("tflite", reason="the flatbuffer schema is a package of the host")

    assert models_made.MADE[name]() == models_made.read(name)


def test_the_patterns_of_two_classes_differ_in_half_of_their_pixels() -> None:
    patterns = [models_made.pattern(label) for label in range(models_made.CLASSES)]

    for i, one in enumerate(patterns):
        for other in patterns[:i]:
            assert (one != other).sum() == models_made.SIDE * models_made.SIDE // 2
