"""How `tflotilla quantize` speaks of layers."""

from __future__ import annotations

import pytest

from tflotilla.host.cli import quantize

RANKED = [f"net/layer_{i}/Relu;net/layer_{i}/Conv2D" for i in range(12)]


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([3], "net/layer_3/Relu"),
        ([0, 1], "net/layer_0/Relu, net/layer_1/Relu"),
        (range(8), "the 8 worst, to net/layer_7/Relu"),
        ([0, 1, 3, 4], "the 5 worst but net/layer_2/Relu"),
        ([4, 8, 9], "the 10 worst but net/layer_0/Relu, net/layer_1/Relu +5"),
    ],
)
def test_kept_layers_are_named_by_their_places_in_the_ranking(places: list[int], words: str) -> None:
    assert quantize.kept_in_words([RANKED[i] for i in places], RANKED) == words


def test_a_long_name_keeps_its_end() -> None:
    assert quantize.short("a" * 60 + "/Relu;b") == "…" + "a" * 34 + "/Relu"
