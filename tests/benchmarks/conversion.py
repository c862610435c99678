"""What converting costs beside the bare TFLiteConverter calls it makes: MobileNetV2 1.0 224, six schemes, 100 images.

Both sides are one command from its start to its end, so both import TensorFlow once, read the same `.keras` file and
the same images through the same preprocessing, and write six files:

    bare    TFLiteConverter.from_keras_model(model).convert(), six times, as TensorFlow's guide has it
    ours    `tflotilla convert`, with all that it does besides: it looks for code and NaN in the file, calibrates, runs
            the source and then every file on every runtime that is here, compares, compresses, inspects, delivers

They take turns within a round, and change who begins. Wall time is what a user waits for; the time of the CPU is told
beside it, because another program may be running. The weights are random: how long it takes doesn't depend on them.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tflotilla.host.models import child, samples
from tflotilla.shared.contract.tensors import TensorSpec
from tflotilla.shared.inference import preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

LIMIT = 1.15
SCHEMES = ("float32", "float16", "dynamic_range", "int8", "int8_io_uint8", "int16x8")
_ROUNDS = 2
_IMAGES, _SIDE = 100, 224
_PHOTO = (320, 240)
_PREPROCESSING = "mobilenet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of one side of one round, its children's included."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What each side took, round by round."""

    bare: tuple[Spent, ...]
    ours: tuple[Spent, ...]

    @property
    def wall_ratio(self) -> float:
        """Ours over bare, the median of the rounds."""
        return statistics.median(o.wall_s / b.wall_s for o, b in zip(self.ours, self.bare, strict=True))

    @property
    def cpu_ratio(self) -> float:
        """The same of the CPU's time."""
        return statistics.median(o.cpu_s / b.cpu_s for o, b in zip(self.ours, self.bare, strict=True))

    @property
    def kept(self) -> bool:
        """Whether the promise holds, for who waits and for who pays."""
        return self.wall_ratio <= LIMIT and self.cpu_ratio <= LIMIT


def measure(folder: Path, *, rounds: int = _ROUNDS) -> Conversion:
    """Make the model and the images, and let both sides convert in turns."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(_IMAGES):
        pixels = generator.integers(0, 256, (*_PHOTO[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:03}.jpg")
    model = folder / "mobilenet_v2.keras"
    _spend([sys.executable, "-m", __name__, "make", str(model)], folder)
    bare = [sys.executable, "-m", __name__, "convert", str(model), str(photos), str(folder / "bare")]
    ours = [sys.executable, "-m", "tflotilla.host", "convert", str(model), "-o", str(folder / "ours"), "--json"]
    ours += ["--calibration", str(photos), "--preprocess", _PREPROCESSING, "--samples", str(_IMAGES)]
    ours += [word for scheme in SCHEMES for word in ("--scheme", scheme)]
    spent: dict[str, list[Spent]] = {"bare": [], "ours": []}
    for number in range(rounds):
        turns = [("bare", bare), ("ours", ours)]
        for side, command in turns if number % 2 == 0 else turns[::-1]:
            spent[side].append(_spend(command, folder))
    for side in spent:
        if len(list((folder / side).glob("*.tflite"))) != len(SCHEMES):
            raise RuntimeError(f"{side}: not every scheme was made")
    return Conversion(bare=tuple(spent["bare"]), ours=tuple(spent["ours"]))


def _spend(command: Sequence[str], home: Path) -> Spent:
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # The same environment on both sides: the one in which our conversion runs.
    done = subprocess.run(command, capture_output=True, env=child.environment(home), check=False)
    wall_s = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    return Spent(wall_s=wall_s, cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _make(path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    keras.applications.MobileNetV2(weights=None).save(path)


def _convert(path: Path, photos: Path, out: Path) -> None:
    """Convert as the guides do, without looking at what comes out."""
    import keras
    import tensorflow as tf

    out.mkdir(exist_ok=True)
    model = keras.models.load_model(path, compile=False)
    spec = TensorSpec(name="image", shape=(1, _SIDE, _SIDE, 3), dtype="float32")
    chosen = preprocessing.parse(_PREPROCESSING, channels=3)
    # Decoded once, as we do; a generator that decodes again for every scheme would make the bare side slower.
    images = samples.load(photos, (spec,), chosen, limit=_IMAGES)

    def feed() -> Iterator[list[NDArray[Any]]]:
        for (image,) in images:
            yield [image]

    ops = tf.lite.OpsSet
    for scheme in SCHEMES:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if scheme != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if scheme.startswith("int"):
            converter.representative_dataset = feed
        if scheme == "int8_io_uint8":
            converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        if scheme == "int16x8":
            wide = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            converter.target_spec.supported_ops = [wide, ops.TFLITE_BUILTINS]
        (out / f"{scheme}.tflite").write_bytes(converter.convert())
    # As our child ends: TensorFlow's threads take their time.
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        _make(Path(sys.argv[2]))
    else:
        _convert(*map(Path, sys.argv[2:]))
