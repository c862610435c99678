"""From an image to a tensor: the same bytes in calibration, evaluation and on the board."""

from __future__ import annotations

import random
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from tflotilla.shared.contract import processing
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import DType, Quantization, TensorSpec
from tflotilla.shared.inference.preprocessing import Preprocessor, from_real, parse, to_real
from tflotilla.shared.inference.quantization import quantize

TWO_BY_TWO = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 99, 199]]], np.uint8)


def _spec(shape: tuple[int, ...], dtype: DType, scale: float | None = None, zero_point: int = 0) -> TensorSpec:
    quantization = None if scale is None else Quantization(scales=(scale,), zero_points=(zero_point,))
    return TensorSpec(name="image", shape=shape, dtype=dtype, quantization=quantization)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("raw", Preprocessing()),
        ("unit", Preprocessing(std=(255.0,))),
        ("mobilenet", Preprocessing(mean=(127.5,), std=(127.5,))),
        ("squeezenet", Preprocessing(mean=(127.5,), std=(255.0,))),
        ("mobilenet,resize=crop", Preprocessing(mean=(127.5,), std=(127.5,), resize="crop")),
        (
            " colour=gray , resize=pad,interpolation=area,mean=1,std=2,draft=true",
            Preprocessing(colour="gray", resize="pad", interpolation="area", mean=(1.0,), std=(2.0,), draft=True),
        ),
        ("colour=bgr,mean=103.9:116.8:123.7", Preprocessing(colour="bgr", mean=(103.9, 116.8, 123.7))),
    ],
)
def test_a_preset_or_keys_or_both_say_how(text: str, expected: Preprocessing) -> None:
    assert parse(text) == expected


def test_a_model_of_one_channel_gets_gray_unless_a_colour_is_said() -> None:
    assert parse("unit", channels=1).colour == "gray"
    assert parse("unit", channels=3).colour == "rgb"
    assert parse("unit,colour=bgr", channels=1).colour == "bgr"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet", "expected one of raw, unit, mobilenet, squeezenet first, or KEY=VALUE"),
        ("", "expected one of raw, unit, mobilenet, squeezenet first, or KEY=VALUE"),
        ("resize=crop,unit", "expected one of raw, unit, mobilenet, squeezenet first"),
        ("resize=fit", "expected one of stretch, crop, pad"),
        ("color=rgb", "expected one of colour, resize, interpolation, draft, mean, std"),
        ("mean=a", "expected a number, or one per channel separated by ':'"),
        ("mean=nan", "expected finite numbers"),
        ("std=0", "std must not be 0"),
        ("mean=1:2", "mean must hold 1 or 3 numbers"),
        ("draft=yes", "expected one of true, false"),
    ],
)
def test_what_makes_no_sense_is_answered_with_what_does(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)

    assert said in str(caught.value)


def test_mean_and_std_apply_per_channel_in_the_order_of_the_colour() -> None:
    how = Preprocessing(colour="bgr", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    expected = (TWO_BY_TWO[..., ::-1].astype(np.float64) - [1, 2, 3]) / [2, 4, 8]

    real = to_real(Image.fromarray(TWO_BY_TWO), how, height=2, width=2)

    assert real.dtype == np.float32
    assert (real == expected.astype(np.float32)).all()


@pytest.mark.parametrize("seed", range(60))
def test_preparing_is_quantizing_what_calibration_saw(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    colour: processing.Colour = rng.choice(get_args(processing.Colour))
    channels = 1 if colour == "gray" else 3
    count = rng.choice([1, channels])
    how = Preprocessing(
        colour=colour,
        resize=rng.choice(get_args(processing.Resize)),
        interpolation=rng.choice(get_args(processing.Interpolation)),
        mean=tuple(rng.uniform(0, 255) for _ in range(count)),
        std=tuple(rng.uniform(1, 255) for _ in range(count)),
    )
    height, width = rng.randint(1, 20), rng.randint(1, 20)
    dtype: DType = rng.choice(["float32", "uint8", "int8", "int16"])
    batch = rng.choice([1, -1])
    shape = (batch, height, width) if channels == 1 and rng.random() < 0.3 else (batch, height, width, channels)
    scale = rng.choice([None, rng.uniform(0.001, 0.1)])
    spec = _spec(shape, dtype, None if dtype == "float32" else scale, 0 if dtype == "int16" else rng.randint(0, 127))
    pixels = np.random.default_rng(seed).integers(0, 256, (rng.randint(1, 50), rng.randint(1, 50), 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    preprocessor = Preprocessor(how, spec)

    tensor = preprocessor.prepare(image)

    real = to_real(image, how, height=height, width=width)
    assert tensor.shape == (1, *shape[1:])
    assert tensor.dtype == np.dtype(dtype)
    assert (tensor == quantize(real, spec).reshape(tensor.shape)).all()
    assert (tensor == preprocessor.from_real(real)).all()


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_a_scale_that_undoes_the_normalization_gives_the_pixels_back(dtype: DType, zero_point: int) -> None:
    every_level = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))

    preprocessor = Preprocessor(Preprocessing(colour="gray"), _spec((1, 16, 16, 1), dtype, 1.0, zero_point))
    levels = preprocessor.prepare(every_level).reshape(-1).astype(int)

    assert (levels == np.arange(256) + zero_point).all()


def test_a_crop_keeps_the_aspect_ratio_and_the_middle() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    how = Preprocessing(colour="gray", resize="crop", interpolation="nearest")

    assert (to_real(Image.fromarray(wide), how, height=5, width=5) == 200).all()


def test_a_pad_keeps_everything_and_fills_with_black() -> None:
    wide = np.full((10, 30), 200, np.uint8)
    how = Preprocessing(colour="gray", resize="pad", interpolation="nearest")
    real = to_real(Image.fromarray(wide), how, height=30, width=30)[..., 0]

    assert (real[10:20] == 200).all()
    assert not real[:10].any()
    assert not real[20:].any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_every_mode_of_image_is_taken(mode: str) -> None:
    image = Image.fromarray(TWO_BY_TWO).convert(mode)

    assert Preprocessor(Preprocessing(), _spec((1, 2, 2, 3), "uint8")).prepare(image).shape == (1, 2, 2, 3)


def test_a_draft_asks_for_the_size_of_the_input() -> None:
    spec = _spec((1, 20, 30, 3), "uint8")

    assert Preprocessor(Preprocessing(draft=True), spec).draft_size == (30, 20)
    assert Preprocessor(Preprocessing(), spec).draft_size is None


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 8, 8, 1), "uint8", "takes 1 colour channels, the preprocessing gives 3; say colour=gray"),
        ((1, 8, 8), "uint8", "takes 1 colour channels"),
        ((1, 3, 8, 8), "float32", "doesn't take an image"),
        ((1, 784), "float32", "doesn't take an image"),
        ((4, 8, 8, 3), "float32", "doesn't take an image"),
        ((1, -1, -1, 3), "float32", "doesn't take an image"),
        ((), "float32", "doesn't take an image"),
        ((1, 8, 8, 3), "string", "of dtype string doesn't take an image"),
    ],
)
def test_an_input_that_takes_no_such_image_is_refused(shape: tuple[int, ...], dtype: DType, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        Preprocessor(Preprocessing(), _spec(shape, dtype))

    assert said in str(caught.value)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (1, 28, 28), (1, 28, 28, 1)])
def test_a_sample_may_come_with_or_without_its_dimensions_of_one(shape: tuple[int, ...]) -> None:
    assert from_real(np.zeros(shape), _spec((-1, 28, 28, 1), "float32")).shape == (1, 28, 28, 1)


@pytest.mark.parametrize("shape", [(28,), (28, 27), (784,), (2, 28, 28, 1)])
def test_a_sample_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        DatasetError, match=r"a sample of shape .* does not fit input 'image' of shape \(1, 28, 28, 1\)"
    ):
        from_real(np.zeros(shape), _spec((1, 28, 28, 1), "float32"))


def test_a_sample_with_nan_is_refused_by_an_integer_input() -> None:
    with pytest.raises(DatasetError, match="NaN"):
        from_real(np.full((1, 4), np.nan), _spec((1, 4), "int8", 0.1))
