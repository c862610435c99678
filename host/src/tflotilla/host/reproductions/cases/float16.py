"""The same CNN with its weights in float16: half the size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.reproductions import making, mnist
from tflotilla.host.reproductions.cases.mnist_weights import EPOCHS
from tflotilla.host.reproductions.reproduction import Reproduction, Row, megabytes
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from tflotilla.host.reproductions.desk import Desk

TITLE = "MNIST CNN: float16 weights"
NEEDS = "MNIST's four idx files"
MINUTES = 3
_LEAST_RATIO = 1.9
#: One image of 10,000.
_MOST_LOST = 0.0001


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    source = mnist.trained(desk, "cnn", epochs=EPOCHS)
    made = making.files(desk, source, making.schemes("float32", "float16"))
    floating, half = made[QuantizationScheme.FLOAT32], made[QuantizationScheme.FLOAT16]
    before, after = making.mnist_accuracies(desk, (floating, half))
    ratio = floating.stat().st_size / half.stat().st_size
    return Reproduction(
        name="float16",
        title=TITLE,
        rows=(
            Row(what="float32", published="", ours=f"{megabytes(floating.stat().st_size)}, {before:.2%}"),
            Row(what="float16", published="", ours=f"{megabytes(half.stat().st_size)}, {after:.2%}"),
            Row(what="size", published="about 1/2", ours=f"1/{ratio:.2f}", holds=ratio >= _LEAST_RATIO),
            Row(
                what="accuracy lost",
                published="",
                ours=f"{(before - after) * 100:.2f} points",
                holds=before - after <= _MOST_LOST,
            ),
        ),
    )
