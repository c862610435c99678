"""MobileNetV2 1.0 224 from Keras .h5 over a frozen graph to float and int8 TFLite: what each step weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.reproductions import making, networks
from tflotilla.host.reproductions.reproduction import Reproduction, Row, megabytes
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

TITLE = "MobileNetV2 1.0 224: sizes from Keras to int8"
NEEDS = ""
MINUTES = 2
SIDE = 224
_CALIBRATION = 20
_PUBLISHED_RATIO = 3.5


def write(desk: Desk) -> tuple[networks.Written, Path, Path]:
    """Return the network as it is written by Keras, in float TFLite, and in int8."""
    written = networks.write(desk, "MobileNetV2", SIDE)
    made = making.files(
        desk,
        written.frozen,
        making.schemes("float32", "int8_io_uint8"),
        calibration=making.noise_images(desk, SIDE, _CALIBRATION),
    )
    return written, made[QuantizationScheme.FLOAT32], made[QuantizationScheme.INT8_IO_UINT8]


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    written, floating, integer = write(desk)
    ratio = floating.stat().st_size / integer.stat().st_size
    return Reproduction(
        name="mobilenet-v2-sizes",
        title=TITLE,
        rows=(
            Row(what="Keras .h5", published="14.6 MB", ours=megabytes(written.h5.stat().st_size)),
            Row(what="frozen graph", published="14.2 MB", ours=megabytes(written.frozen.stat().st_size)),
            Row(what="TFLite float32", published="14.0 MB", ours=megabytes(floating.stat().st_size)),
            Row(what="TFLite int8", published="4.0 MB", ours=megabytes(integer.stat().st_size)),
            Row(
                what="float32 ÷ int8",
                published=f"{_PUBLISHED_RATIO}×",
                ours=f"{ratio:.2f}×",
                holds=ratio >= _PUBLISHED_RATIO - 0.05,
            ),
        ),
        remarks=("The weights are random: sizes don't depend on values, and the published ones are not shipped.",),
    )
