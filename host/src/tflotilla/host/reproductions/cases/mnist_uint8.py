"""The same CNN in integers alone, with uint8 at its edges: a quarter of the size, the accuracy the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.reproductions import making, mnist
from tflotilla.host.reproductions.cases.mnist_weights import EPOCHS
from tflotilla.host.reproductions.reproduction import Reproduction, Row, megabytes
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from tflotilla.host.reproductions.desk import Desk

TITLE = "MNIST CNN: full integer, uint8 in and out"
NEEDS = "MNIST's four idx files"
MINUTES = 3
_LEAST_RATIO = 3.8
#: A tenth of a point; the standard error of an accuracy near 99 % on 10,000 images is as much.
_MOST_LOST = 0.001


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    source = mnist.trained(desk, "cnn", epochs=EPOCHS)
    made = making.files(
        desk,
        source,
        making.schemes("float32", "int8_io_uint8"),
        calibration=mnist.calibration(desk),
        preprocess="unit",
    )
    floating, integer = made[QuantizationScheme.FLOAT32], made[QuantizationScheme.INT8_IO_UINT8]
    before, after = making.mnist_accuracies(desk, (floating, integer))
    found = inspect_model(integer)
    ratio = floating.stat().st_size / integer.stat().st_size
    edges = f"{found.inputs[0].dtype} → {found.outputs[0].dtype}"
    return Reproduction(
        name="mnist-uint8",
        title=TITLE,
        rows=(
            Row(what="float32", published="", ours=f"{megabytes(floating.stat().st_size)}, {before:.2%}"),
            Row(what="int8", published="", ours=f"{megabytes(integer.stat().st_size)}, {after:.2%}"),
            Row(what="size", published="about 1/4", ours=f"1/{ratio:.2f}", holds=ratio >= _LEAST_RATIO),
            Row(
                what="accuracy",
                published="the same",
                ours=f"{(after - before) * 100:+.2f} points",
                holds=before - after <= _MOST_LOST,
            ),
            Row(what="in → out", published="uint8 → uint8", ours=edges, holds=edges == "uint8 → uint8"),
            Row(what="operators in float", published="none", ours=str(len(found.float_ops)), holds=found.integer_only),
        ),
    )
