"""The inputs that goldens are made from: the user's images or arrays, or seeded noise when there are none.

    folder of images, or one image     through the bundle's own preprocessing
    .npy                               (N, …) samples of the model's one input
    .npz                               one such array per input, under the input's name (or in the model's order);
                                       or x and y as `evaluate` takes them: x

Arrays of uint8 for a model that takes images are pixels; arrays in the input's own dtype are taken as they are; floats
are real, already preprocessed numbers. What it does NOT do: need labels.
"""

from __future__ import annotations

import itertools
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tflotilla.shared.contract.errors import DatasetError, ModelError
from tflotilla.shared.inference.images import IMAGE_SUFFIXES, list_images, open_image
from tflotilla.shared.inference.preprocessing import Preprocessor, from_real

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.shared.contract.processing import Preprocessing
    from tflotilla.shared.contract.tensors import TensorSpec

    #: The input tensors of one run.
    Inputs = tuple[NDArray[Any], ...]

_SEED = 20240229
#: Noise in patches, an image's worth of structure: white noise says the same to every convolution.
_PATCHES = 8
_FINE_NOISE = 0.15
_IMAGE_DIMENSIONS = 4
#: What `evaluate` takes; here its labels are not needed.
_LABELLED = {"x", "y"}


def load(
    data: Path | None, specs: Sequence[TensorSpec], preprocessing: Preprocessing | None, *, limit: int
) -> tuple[Inputs, ...]:
    """Return up to `limit` inputs, spread evenly over the data; noise when `data` is None.

    Raises:
        DatasetError: the data can't be read, or don't fit the model.
        ModelError: an input takes texts, or the preprocessing doesn't fit it.

    """
    if not specs:
        raise ModelError("the model has no input, so there is nothing to verify on a board")
    _refuse_text(specs)
    if data is None:
        return noise(specs, preprocessing, count=limit)
    if data.suffix == ".npy":
        if len(specs) > 1:
            raise DatasetError(f"{data}: the model has {len(specs)} inputs; give a .npz with an array for each")
        return _from_arrays(data, {specs[0].name: _load_npy(data)}, specs, preprocessing, limit)
    if data.suffix == ".npz":
        return _from_arrays(data, _load_npz(data), specs, preprocessing, limit)
    if not data.exists():
        raise DatasetError(f"{data}: there is no such folder or file")
    if not data.is_dir() and data.suffix.lower() not in IMAGE_SUFFIXES:
        raise DatasetError(f"{data}: goldens are made from a folder of images, an image, a .npy or a .npz")
    return _from_images(data, specs, preprocessing, limit)


def noise(specs: Sequence[TensorSpec], preprocessing: Preprocessing | None, *, count: int) -> tuple[Inputs, ...]:
    """Return seeded inputs, the same on every machine: random pictures for images, the whole range for the rest.

    Raises:
        ModelError: an input takes texts.

    """
    _refuse_text(specs)
    generator = np.random.Generator(np.random.PCG64(_SEED))
    # Pictures go into a model's one input; how further inputs are fed, no preprocessing says.
    preparers = [Preprocessor(preprocessing, spec) if preprocessing and len(specs) == 1 else None for spec in specs]
    return tuple(
        tuple(_noise(spec, prepare, generator) for spec, prepare in zip(specs, preparers, strict=True))
        for _ in range(count)
    )


def _refuse_text(specs: Sequence[TensorSpec]) -> None:
    for spec in specs:
        if spec.dtype == "string":
            raise ModelError(f"input {spec.name!r} holds text; the agent feeds numbers and images only")


def _noise(spec: TensorSpec, prepare: Preprocessor | None, generator: np.random.Generator) -> NDArray[Any]:
    shape = tuple(max(1, size) for size in spec.shape)
    share = _picture(shape, generator) if len(shape) == _IMAGE_DIMENSIONS else generator.random(shape)
    if prepare is not None:
        pixels = np.rint(share * 255).astype(np.uint8).reshape(shape[1:])
        return prepare.prepare(_image(pixels))
    dtype = np.dtype(spec.dtype)
    values: NDArray[Any]
    if dtype.kind == "f":
        values = share * 2 - 1
    elif dtype.kind == "b" or spec.quantization is None:
        # Indices, lengths, switches: small numbers are valid ones most often.
        values = np.rint(share)
    else:
        limits = np.iinfo(dtype)
        values = np.rint(limits.min + share * (float(limits.max) - float(limits.min)))
    return values.astype(dtype)


def _picture(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    _batch, height, width, _channels = shape
    coarse = generator.random((shape[0], _PATCHES, _PATCHES, shape[3]))
    rows = np.arange(height) * _PATCHES // height
    columns = np.arange(width) * _PATCHES // width
    patches = coarse[:, rows][:, :, columns]
    mixed: NDArray[np.float64] = patches * (1 - _FINE_NOISE) + generator.random(shape) * _FINE_NOISE
    return mixed


def _from_images(
    data: Path, specs: Sequence[TensorSpec], preprocessing: Preprocessing | None, limit: int
) -> tuple[Inputs, ...]:
    if len(specs) > 1:
        raise DatasetError(f"{data}: images fit a model of one input, this one has {len(specs)}; give a .npz")
    if preprocessing is None:
        raise DatasetError(f"{data}: how images become inputs is not said; give --preprocess")
    prepare = Preprocessor(preprocessing, specs[0])
    paths = list_images(data) if data.is_dir() else (data,)
    return tuple((prepare.prepare(open_image(path, draft_size=prepare.draft_size)),) for path in spread(paths, limit))


def arrays(data: Path, specs: Sequence[TensorSpec]) -> tuple[NDArray[Any], ...]:
    """Return a .npy's or .npz's array for each input, of as many samples each, unchanged; a .npy is mapped, not read.

    Raises:
        DatasetError: it can't be read, or doesn't hold one array for each.

    """
    if data.suffix == ".npy":
        if len(specs) > 1:
            raise DatasetError(f"{data}: the model has {len(specs)} inputs; give a .npz with an array for each")
        found = {specs[0].name: _load_npy(data)}
    else:
        found = _load_npz(data)
    chosen = _assign(data, found, specs)
    counts = {len(array) for array in chosen}
    if len(counts) > 1 or 0 in counts:
        raise DatasetError(f"{data}: every array needs the same number of samples, at least one; it has {counts}")
    return tuple(chosen)


def _from_arrays(
    data: Path,
    arrays: Mapping[str, NDArray[Any]],
    specs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    limit: int,
) -> tuple[Inputs, ...]:
    chosen = _assign(data, arrays, specs)
    counts = {len(array) for array in chosen}
    if len(counts) > 1 or 0 in counts:
        raise DatasetError(f"{data}: every array needs the same number of samples, at least one; it has {counts}")
    return tuple(
        tuple(_sample(data, i, array[i], spec, preprocessing) for array, spec in zip(chosen, specs, strict=True))
        for i in evenly(counts.pop(), limit)
    )


def _assign(data: Path, arrays: Mapping[str, NDArray[Any]], specs: Sequence[TensorSpec]) -> list[NDArray[Any]]:
    for name, array in arrays.items():
        if not array.ndim:
            raise DatasetError(f"{data}: {name} is a single number, not an array of samples")
    if all(spec.name in arrays for spec in specs):
        return [arrays[spec.name] for spec in specs]
    given = inputs_among(list(arrays), len(specs))
    if len(given) != len(specs) or any(spec.name in arrays for spec in specs):
        # By order only where no name is known: some names right and some wrong would feed inputs with each other's.
        wanted = ", ".join(spec.name for spec in specs)
        raise DatasetError(f"{data}: holds {', '.join(arrays) or 'nothing'}; expected one array for each of {wanted}")
    return [arrays[name] for name in given]


def inputs_among(names: Sequence[str], count: int) -> list[str]:
    """Return which arrays of a .npz are inputs of a model that has `count`: labels beside them are none."""
    return ["x"] if count == 1 and set(names) == _LABELLED else list(names)


def _sample(
    data: Path, number: int, sample: NDArray[Any], spec: TensorSpec, preprocessing: Preprocessing | None
) -> NDArray[Any]:
    wanted = tuple(size for size in spec.shape if size != 1)
    given = tuple(size for size in sample.shape if size != 1)
    if len(wanted) != len(given) or any(w not in (-1, g) for w, g in zip(wanted, given, strict=True)):
        raise DatasetError(
            f"{data}: a sample of shape {tuple(sample.shape)} does not fit input {spec.name!r} of shape {spec.shape}"
        )
    if sample.dtype == np.uint8 and preprocessing is not None:
        prepare = Preprocessor(preprocessing, spec)
        return prepare.prepare(_image(sample.reshape(tuple(max(1, size) for size in spec.shape)[1:])))
    if sample.dtype == np.dtype(spec.dtype) and sample.dtype.kind != "f" and -1 not in spec.shape[1:]:
        return sample.reshape(tuple(max(1, size) for size in spec.shape))
    if sample.dtype.kind not in "fiub":
        raise DatasetError(f"{data}: holds {sample.dtype}, not numbers")
    if not np.isfinite(sample).all():
        raise DatasetError(f"{data}: sample {number} of input {spec.name!r} holds NaN or infinity")
    return from_real(sample, spec)


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Make an image of (H, W), (H, W, 1) or (H, W, 3) pixels."""
    squeezed = pixels[..., 0] if pixels.ndim == _IMAGE_DIMENSIONS - 1 and pixels.shape[-1] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(squeezed))


def check_readable(data: Path) -> None:
    """Find out before long work whether there is something to load: arrays, or images that are not empty.

    Raises:
        DatasetError: names the file.

    """
    if data.suffix in (".npy", ".npz"):
        held = {"": _load_npy(data)} if data.suffix == ".npy" else _load_npz(data)
        if not held or any(array.ndim and not len(array) for array in held.values()):
            raise DatasetError(f"{data}: holds no samples; every array needs the same number of them, at least one")
    elif data.is_dir():
        for path in list_images(data):
            if not path.stat().st_size:
                raise DatasetError(f"{path} is empty")
    else:
        open_image(data)


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        # Mapped, not read: of a great file only the chosen samples are touched.
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: not an array of numbers that can be read") from error
    return array


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise DatasetError(f"{path}: not a .npz of arrays that can be read") from error
    for name, array in arrays.items():
        # A member that is no array comes as its bytes.
        if not isinstance(array, np.ndarray):
            raise DatasetError(f"{path}: {name} is not an array; `numpy.savez` makes a .npz")
    return arrays


def spread(paths: Sequence[Path], limit: int) -> tuple[Path, ...]:
    """Return up to `limit` of sorted paths, spread evenly; from every folder, where there is room for one of each."""
    chosen = tuple(paths[i] for i in evenly(len(paths), limit))
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    if len({path.parent for path in chosen}) == len(folders) or limit < len(folders):
        return chosen
    # Classes of very different sizes: an even spread passes over the small ones.
    shares = dict.fromkeys(folders, 0)
    for _ in range(limit):
        shares[min((f for f in folders if shares[f] < len(folders[f])), key=lambda f: shares[f])] += 1
    return tuple(paths[i] for folder, paths in folders.items() for i in evenly(len(paths), shares[folder]))


def evenly(total: int, limit: int | None) -> list[int]:
    """Return up to `limit` of 0..total-1, ascending: one of each equal part, at a random place in it, always the same.

    At one place in all parts, data whose classes come in turns (0, 1, 0, 1, …) would give samples of one class alone.
    """
    wanted = total if limit is None else min(total, limit)
    edges = [part * total // wanted for part in range(wanted)] + [total]
    places = np.random.Generator(np.random.PCG64(_SEED)).random(wanted)
    return [
        start + int((end - start) * place)
        for place, (start, end) in zip(places, itertools.pairwise(edges), strict=True)
    ]
