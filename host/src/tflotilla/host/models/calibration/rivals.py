"""Other preprocessings that the same pixels could have gone through, and how to ask for them. Pure.

    ranges    0..255, 0..1, -1..1, -0.5..0.5, ImageNet's mean and deviation, ImageNet's mean alone (Caffe)
    order     RGB and BGR; for gray: black and white exchanged

A preprocessing is affine in the pixels, so what a rival makes of an image is computed from what the given one made.

What it does NOT do: decide which one is right; other resizing than the user's is no rival, it moves no range.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.processing import Colour, Preprocessing
from tflotilla.shared.inference.preprocessing import PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: Red, green, blue: the means and deviations of ImageNet that torchvision and Keras (mode "torch") use.
_IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
#: Keras's mode "caffe", which goes with BGR.
_CAFFE = Preprocessing(mean=(123.68, 116.779, 103.939))
_RANGES: Mapping[str, Preprocessing] = {**PRESETS, "imagenet": _IMAGENET, "caffe": _CAFFE}
_DEFAULT = Preprocessing()
#: Stands for data that are no images: numbers as they came.
AS_IS = Preprocessing()
_WHITE = 255.0
#: How far numbers may lie outside a preset's range and still be its own: resampling overshoots a little.
_SLACK = 0.05


def rivals(given: Preprocessing) -> tuple[Preprocessing, ...]:
    """Return the preprocessings to compare with, the given one first; its resizing is kept."""
    found = [given]
    for preset in _RANGES.values():
        if given.colour == "gray" and len(preset.mean) > 1:
            continue
        plain = dataclasses.replace(given, colour="rgb", mean=preset.mean, std=preset.std)
        if given.colour == "gray":
            found += [dataclasses.replace(plain, colour="gray"), _inverted(dataclasses.replace(plain, colour="gray"))]
        else:
            found += [plain, swapped(plain)]
    found.append(swapped(given) if given.colour != "gray" else _inverted(given))
    distinct: list[Preprocessing] = []
    for each in found:
        if not any(same(each, other) for other in distinct):
            distinct.append(each)
    return tuple(distinct)


def swapped(given: Preprocessing) -> Preprocessing:
    """Return the same preprocessing with red and blue exchanged: each colour keeps its own mean and deviation."""
    exchanged: dict[Colour, Colour] = {"rgb": "bgr", "bgr": "rgb", "gray": "gray"}
    return dataclasses.replace(given, colour=exchanged[given.colour], mean=given.mean[::-1], std=given.std[::-1])


def same_order(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both give the colours in the same order; for gray, whether both keep black black."""
    return one.colour == other.colour and (one.std[0] > 0) == (other.std[0] > 0)


def same_range(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both make about the same numbers of a pixel, whatever the order of the colours."""
    return bool(np.allclose(_edges(one), _edges(other), atol=0.02 * float(np.ptp(_edges(one)))))


def same(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both make about the same numbers of an image: 127 and 128 is as good as 127.5 and 127.5."""
    return same_order(one, other) and same_range(one, other)


def transfer(tensor: NDArray[Any], given: Preprocessing, rival: Preprocessing) -> NDArray[np.float32]:
    """Return what `rival` would have made of the image that `given` made `tensor` (…, channels) of, float32."""
    if same(given, rival):
        return tensor.astype(np.float32)
    pixels = tensor if given.colour == rival.colour else tensor[..., ::-1]
    step = 1 if given.colour == rival.colour else -1
    std, mean = (np.broadcast_to(v, tensor.shape[-1:])[::step] for v in (given.std, given.mean))
    # (x * std + mean - mean') / std' in one multiplication and one addition per number.
    factor = np.asarray(std / np.asarray(rival.std), dtype=np.float32)
    offset = np.asarray((mean - np.asarray(rival.mean)) / np.asarray(rival.std), dtype=np.float32)
    made: NDArray[np.float32] = pixels * factor + offset
    return made


def guess(minimum: float, maximum: float, *, channels: int) -> Preprocessing | None:
    """Return the preset whose range numbers from `minimum` to `maximum` fill best; None when they fit none."""
    fitting = []
    for preset in PRESETS.values():
        low, high = (float(edge) for edge in _edges(preset)[0])
        slack = _SLACK * (high - low)
        if minimum >= low - slack and maximum <= high + slack:
            fitting.append((high - low, abs(low - minimum), preset))
    if not fitting:
        return None
    *_, best = min(fitting, key=lambda entry: entry[:2])
    return dataclasses.replace(best, colour="gray") if channels == 1 else best


def spell(preprocessing: Preprocessing) -> str:
    """Return what to write behind `--preprocess`; `parse(spell(p))` is p (a model of one channel makes it gray)."""
    name = next((name for name, preset in PRESETS.items() if _statistics(preset) == _statistics(preprocessing)), None)
    parts = [] if name is None else [name]
    if name is None:
        parts = [f"mean={_numbers(preprocessing.mean)}", f"std={_numbers(preprocessing.std)}"]
    if preprocessing.colour == "bgr":
        parts.append("colour=bgr")
    for key in ("resize", "interpolation"):
        if getattr(preprocessing, key) != getattr(_DEFAULT, key):
            parts.append(f"{key}={getattr(preprocessing, key)}")
    if preprocessing.draft:
        parts.append("draft=true")
    return ",".join(parts)


def _inverted(given: Preprocessing) -> Preprocessing:
    """Return the same range with black and white exchanged: (255 - pixel - mean) / std."""
    mean, std = tuple(_WHITE - value for value in given.mean), tuple(-value for value in given.std)
    return dataclasses.replace(given, mean=mean, std=std)


def _edges(preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Return what black and white become, per channel in the order red, green, blue: (channels, 2)."""
    step = -1 if preprocessing.colour == "bgr" else 1
    mean, std = np.asarray(preprocessing.mean)[::step], np.asarray(preprocessing.std)[::step]
    black, white = (np.broadcast_to((pixel - mean) / std, (3,)) for pixel in (0.0, _WHITE))
    return np.sort(np.stack([black, white], axis=1), axis=1)


def _statistics(preprocessing: Preprocessing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return preprocessing.mean, preprocessing.std


def _numbers(values: tuple[float, ...]) -> str:
    return ":".join(f"{value:.9g}" for value in values)
