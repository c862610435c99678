"""A CNN on MNIST whose weights become int8 (dynamic range): a quarter of the size, the same accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.reproductions import making, mnist
from tflotilla.host.reproductions.reproduction import Reproduction, Row, megabytes
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

TITLE = "MNIST CNN: weight quantization"
NEEDS = "MNIST's four idx files"
MINUTES = 3
EPOCHS = 4
_LEAST_RATIO = 3.8
#: Five of 10,000 images: more than the published three, less than anybody would see.
_MOST_LOST = 0.0005


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    source = mnist.trained(desk, "cnn", epochs=EPOCHS)
    made = making.files(desk, source, making.schemes("float32", "dynamic_range"))
    floating, small = made[QuantizationScheme.FLOAT32], made[QuantizationScheme.DYNAMIC_RANGE]
    before, after = making.mnist_accuracies(desk, (floating, small))
    ratio = floating.stat().st_size / small.stat().st_size
    return Reproduction(
        name="mnist-weights",
        title=TITLE,
        rows=(
            Row(what="float32", published="1.6 MB, 97.97 %", ours=f"{_size(floating)}, {before:.2%}"),
            Row(what="weights in int8", published="401 KB, 97.94 %", ours=f"{_size(small)}, {after:.2%}"),
            Row(what="size", published="4.0×", ours=f"{ratio:.2f}×", holds=ratio >= _LEAST_RATIO),
            Row(
                what="accuracy lost",
                published="0.03 points",
                ours=f"{(before - after) * 100:.2f} points",
                holds=before - after <= _MOST_LOST,
            ),
        ),
        remarks=("Trained here on all 60,000 images; the accuracy is that on all 10,000 test images.",),
    )


def _size(path: Path) -> str:
    return megabytes(path.stat().st_size)
