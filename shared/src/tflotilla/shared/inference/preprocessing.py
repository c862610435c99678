"""From a decoded image to an input tensor, as `Preprocessing` says: colour, resize, (x - mean) / std, dtype.

Everything after the resize is a look-up in a table of 256 entries per channel, computed once in float64: fast, and the
same bytes on every machine. `Preprocessor(p, spec).prepare(i)` equals `quantize(to_real(i, p, …), spec)` by
construction. What it does NOT do: open files (`images`), choose statistics.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from PIL import Image

from tflotilla.shared.contract import processing
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.inference.quantization import quantize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tflotilla.shared.contract.tensors import TensorSpec

PRESETS: Mapping[str, Preprocessing] = {
    "raw": Preprocessing(),
    "unit": Preprocessing(std=(255.0,)),
    "mobilenet": Preprocessing(mean=(127.5,), std=(127.5,)),
    "squeezenet": Preprocessing(mean=(127.5,), std=(255.0,)),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "colour": get_args(processing.Colour),
    "resize": get_args(processing.Resize),
    "interpolation": get_args(processing.Interpolation),
    "draft": ("true", "false"),
}
_NUMBERS = ("mean", "std")
_RESAMPLING: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
_LEVELS = 256
_COLOUR_CHANNELS = 3
_BATCHED_GRAY, _BATCHED_IMAGE = 3, 4


def parse(text: str, *, channels: int | None = None) -> Preprocessing:
    """Read what stands behind `--preprocess`: a preset, `key=value` pairs, or a preset with changes.

    `mobilenet`, `unit,resize=crop`, `colour=bgr,mean=103.9:116.8:123.7`. Where no colour is given, a model of one
    channel (`channels`) gets gray.

    Raises:
        UsageError: naming the allowed presets, keys and values.

    """
    chosen: dict[str, Any] = {}
    base = PRESETS["raw"]
    for position, part in enumerate(piece.strip() for piece in text.split(",")):
        key, equals, value = (side.strip() for side in part.partition("="))
        if not equals:
            if position > 0 or key not in PRESETS:
                message = f"preprocessing {part!r}: expected one of {', '.join(PRESETS)} first, or KEY=VALUE"
                raise UsageError(message)
            base = PRESETS[key]
        elif key in _CHOICES:
            if value not in _CHOICES[key]:
                message = f"preprocessing {key}={value!r}: expected one of {', '.join(_CHOICES[key])}"
                raise UsageError(message)
            chosen[key] = value == "true" if key == "draft" else value
        elif key in _NUMBERS:
            chosen[key] = _numbers(key, value)
        else:
            message = f"preprocessing {key!r}: expected one of {', '.join((*_CHOICES, *_NUMBERS))}"
            raise UsageError(message)
    if channels == 1:
        chosen.setdefault("colour", "gray")
    try:
        return dataclasses.replace(base, **chosen)
    except ValueError as error:
        message = f"preprocessing {text!r}: {error}"
        raise UsageError(message) from error


def to_real(image: Image.Image, preprocessing: Preprocessing, *, height: int, width: int) -> NDArray[np.float32]:
    """Preprocess an image to real numbers, (height, width, channels) float32: what calibration feeds the converter."""
    return _look_up(_pixels(image, preprocessing, height, width), real_levels(preprocessing))


class Preprocessor:
    """Prepares images for one input of one model."""

    def __init__(self, preprocessing: Preprocessing, spec: TensorSpec) -> None:
        """Compute the table.

        Raises:
            ModelError: the input doesn't take an image, or one of another number of channels.

        """
        self._preprocessing = preprocessing
        self._spec = spec
        self._shape = _image_shape(spec)
        _, self._height, self._width = self._shape[:3]
        channels = self._shape[3] if len(self._shape) == _BATCHED_IMAGE else 1
        gives = 1 if preprocessing.colour == "gray" else _COLOUR_CHANNELS
        if channels != gives:
            message = (
                f"input {spec.name!r} takes {channels} colour channels, the preprocessing gives {gives}; "
                f"say colour={'gray' if channels == 1 else 'rgb'}"
            )
            raise ModelError(message)
        self._table = quantize(real_levels(preprocessing), spec)
        levels = np.arange(_LEVELS, dtype=np.uint8)[:, np.newaxis]
        # Frequent in quantized models: scale and zero point undo exactly what mean and std do.
        self._identity = self._table.dtype == np.uint8 and bool((self._table == levels).all())
        self._shifted = self._table.dtype == np.int8 and bool((self._table.view(np.uint8) == levels ^ 0x80).all())

    @property
    def draft_size(self) -> tuple[int, int] | None:
        """(width, height) for `images.open_image`, None where the preprocessing wants a full decode."""
        return (self._width, self._height) if self._preprocessing.draft else None

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Turn an image into the input tensor, of the spec's dtype and shape with a batch of 1."""
        return self.quantize(self.resize(image))

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """Do the first half of `prepare`: the model's size and order of channels, (height, width, channels)."""
        return _pixels(image, self._preprocessing, self._height, self._width)

    def quantize(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Do the second half of `prepare`, with what `resize` gave."""
        if self._identity:
            return pixels.reshape(self._shape)
        if self._shifted:
            return (pixels ^ 0x80).view(np.int8).reshape(self._shape)
        return _look_up(pixels, self._table).reshape(self._shape)

    def prepare_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Turn many images of the input's own size, (N, H, W, C) in RGB or gray, into (N, H, W, C) of its dtype.

        Each comes out as `prepare` gives it.
        """
        # Written out as in `prepare`, which a board calls for every frame.
        if self._preprocessing.colour == "bgr":
            pixels = pixels[..., ::-1]
        if self._identity:
            return pixels
        if self._shifted:
            return (pixels ^ 0x80).view(np.int8)
        return _look_up(pixels, self._table)

    def from_real(self, real: NDArray[Any]) -> NDArray[Any]:
        """Quantize an already preprocessed sample, (H, W, C) or (1, H, W, C).

        Raises:
            DatasetError: it has another shape, or holds NaN.

        """
        return from_real(real, self._spec)


def from_real(real: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Quantize one real-valued sample, with or without its batch dimension of 1, for any input.

    Raises:
        DatasetError: it has another shape, or holds NaN.

    """
    wanted = (1, *spec.shape[1:]) if spec.shape and spec.shape[0] in (-1, 1) else spec.shape
    given = np.shape(real)
    # Ones say nothing: (28, 28) is (1, 28, 28, 1). Any other difference would be a guess.
    if [size for size in given if size != 1] != [size for size in wanted if size != 1] and -1 not in wanted:
        message = f"a sample of shape {given} does not fit input {spec.name!r} of shape {spec.shape}"
        raise DatasetError(message)
    try:
        tensor = quantize(real, spec)
    except ValueError as error:
        raise DatasetError(str(error)) from error
    return tensor if -1 in wanted else tensor.reshape(wanted)


def _numbers(key: str, value: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in value.split(":"))
    except ValueError as error:
        message = f"preprocessing {key}={value!r}: expected a number, or one per channel separated by ':'"
        raise UsageError(message) from error
    if not np.isfinite(numbers).all():
        message = f"preprocessing {key}={value!r}: expected finite numbers"
        raise UsageError(message)
    return numbers


def _image_shape(spec: TensorSpec) -> tuple[int, ...]:
    shape = tuple(spec.shape)
    fixed = (1, *shape[1:]) if shape and shape[0] in (-1, 1) else shape
    is_image = len(fixed) in (_BATCHED_GRAY, _BATCHED_IMAGE) and fixed[0] == 1 and min(fixed) >= 1
    channels = fixed[3] if len(fixed) == _BATCHED_IMAGE else 1
    if not is_image or channels not in (1, _COLOUR_CHANNELS):
        message = f"input {spec.name!r} of shape {shape} doesn't take an image: expected (1, H, W, 1 or 3) or (1, H, W)"
        raise ModelError(message)
    if spec.dtype not in ("float32", "float16", "uint8", "int8", "int16"):
        message = f"input {spec.name!r} of dtype {spec.dtype} doesn't take an image"
        raise ModelError(message)
    return fixed


def real_levels(preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return what each of the 256 levels becomes, (256, channels) float32."""
    channels = 1 if preprocessing.colour == "gray" else _COLOUR_CHANNELS
    levels = np.arange(_LEVELS, dtype=np.float64)[:, np.newaxis]
    mean, std = (
        np.broadcast_to(np.asarray(values, dtype=np.float64), (channels,))
        for values in (preprocessing.mean, preprocessing.std)
    )
    return ((levels - mean) / std).astype(np.float32)


def _look_up(pixels: NDArray[np.uint8], table: NDArray[Any]) -> NDArray[Any]:
    if (table == table[:, :1]).all():
        return table[:, 0].take(pixels)
    return np.stack([table[:, channel].take(pixels[..., channel]) for channel in range(table.shape[1])], axis=-1)


def _pixels(image: Image.Image, preprocessing: Preprocessing, height: int, width: int) -> NDArray[np.uint8]:
    """Return (height, width, channels) uint8 in the order of channels that the model wants."""
    mode = "L" if preprocessing.colour == "gray" else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = _resize(image, preprocessing, height, width)
    pixels = np.asarray(image)
    if preprocessing.colour == "gray":
        return pixels[:, :, np.newaxis]
    return pixels[:, :, ::-1] if preprocessing.colour == "bgr" else pixels


def _resize(image: Image.Image, preprocessing: Preprocessing, height: int, width: int) -> Image.Image:
    resampling = _RESAMPLING[preprocessing.interpolation]
    if preprocessing.resize == "stretch":
        return image.resize((width, height), resampling)
    horizontal, vertical = width / image.width, height / image.height
    if preprocessing.resize == "crop":
        # The box is cut from the source by the resize itself: no pixel is computed that is thrown away.
        scale = max(horizontal, vertical)
        wide, high = width / scale, height / scale
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        box = (max(left, 0.0), max(top, 0.0), min(left + wide, image.width), min(top + high, image.height))
        return image.resize((width, height), resampling, box=box)
    scale = min(horizontal, vertical)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    padded = Image.new(image.mode, (width, height))
    padded.paste(image.resize(inner, resampling), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded
