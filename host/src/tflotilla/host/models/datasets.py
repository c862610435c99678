"""What users bring to calibrate and to evaluate with: image folders, arrays, labels. No TensorFlow.

Calibration needs no labels; evaluation can't do without. Rules: nothing is guessed (a label that can't be placed is an
error), the order is that of the sorted names, so a limit takes the same samples everywhere.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tflotilla.host.models import idx, samples
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.inference.images import IMAGE_SUFFIXES, list_images
from tflotilla.shared.inference.preprocessing import PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.shared.contract.processing import Preprocessing
    from tflotilla.shared.contract.tensors import TensorSpec

LABELS, TABLE = "labels.txt", "labels.csv"
_SHAPE_OF_LABELLED = (
    "labelled data is a folder with one subfolder per class, a folder with a labels.csv (file,label), "
    "an .npz with x and y, or a folder with MNIST's own files (t10k-images-idx3-ubyte.gz)"
)
_LABEL_COLUMNS = ("label", "index", "class")
_ARRAYS = (".npy", ".npz")
#: Resampling overshoots a little.
_SLACK = 0.05
_LEAST_UNSATURATED = 0.5
_LEAST_USED = 1 / 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Data that the ranges of activations are measured on."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Calibration:
        """Look whether there is anything to calibrate with, before TensorFlow takes its time. Raises DatasetError."""
        if not path.exists():
            raise DatasetError(f"{path}: there is no such folder or file")
        if not path.is_dir() and path.suffix not in _ARRAYS and path.suffix.lower() not in IMAGE_SUFFIXES:
            raise DatasetError(f"{path}: calibration data are a folder of images, a .npy or a .npz")
        samples.check_readable(path)
        return cls(path=path)

    @property
    def holds_files(self) -> bool:
        """Whether it is image files, whose red is red; arrays may hold colours in any order."""
        return self.path.suffix not in _ARRAYS

    def holds_pixels(self, specs: Sequence[TensorSpec]) -> bool:
        """Whether a preprocessing is applied to it: to images and bytes, not to floats, which came preprocessed."""
        return self.holds_files or _holds_pixels(self.path, specs)

    def load(
        self, specs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None, *, limit: int
    ) -> tuple[tuple[NDArray[Any], ...], ...]:
        """Return up to `limit` samples, spread evenly, as real-valued tensors of the inputs' shapes.

        Raises:
            DatasetError: unreadable, empty, of another shape, or not finite; names the file.

        """
        if preprocessing is None and self.holds_pixels(specs):
            raise UsageError(
                f"{self.path} holds pixels, and how they become inputs is half the model; say it with --preprocess "
                "(raw: 0..255, unit: 0..1, mobilenet: -1..1, …)"
            )
        try:
            found = samples.load(self.path, specs, preprocessing, limit=limit)
        except ModelError as error:
            # What doesn't fit together is the model and these data.
            raise DatasetError(f"{self.path}: {error}") from error
        except DatasetError as error:
            message = str(error)
            raise DatasetError(message if str(self.path) in message else f"{self.path}: {message}") from error
        for number, sample in enumerate(found):
            if preprocessing is not None and self.path.suffix in _ARRAYS and len(specs) == 1:
                refuse_unprocessed(sample[0], preprocessing, self.path)
            for tensor, spec in zip(sample, specs, strict=True):
                if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                    raise DatasetError(f"{self.path}: sample {number} of input {spec.name!r} holds NaN or infinity")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """Samples with the index of their class. Either `files` or `array` is set."""

    path: Path
    labels: tuple[int, ...]
    files: tuple[Path, ...] = ()
    array: NDArray[Any] | None = None

    def take(self, limit: int | None) -> LabelledData:
        """Return `limit` samples spread evenly over all, or all."""
        total = len(self.labels)
        if limit is None or limit >= total:
            return self
        chosen = samples.evenly(total, limit)
        return LabelledData(
            path=self.path,
            labels=tuple(self.labels[i] for i in chosen),
            files=tuple(self.files[i] for i in chosen) if self.files else (),
            array=None if self.array is None else self.array[chosen],
        )


def read_labels(path: Path) -> tuple[str, ...]:
    """Read `labels.txt`: one label per line; a leading number as in `0 cat` is the line's own and dropped.

    Raises:
        DatasetError: it can't be read or is empty.

    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a text of labels that can be read ({error})") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DatasetError(f"{path}: holds no labels")
    parts = [line.split(maxsplit=1) for line in lines]
    if all(len(part) > 1 and part[0].rstrip(":") == str(i) for i, part in enumerate(parts)):
        return tuple(part[1] for part in parts)
    return tuple(lines)


def packed_labels(model: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that travel behind a .tflite file (TFLite metadata), when there is one text of them."""
    texts = [name for name in names if Path(name).suffix == ".txt"]
    if len(texts) != 1:
        return ()
    try:
        with zipfile.ZipFile(model) as archive:
            lines = archive.read(texts[0]).decode("utf-8-sig").splitlines()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return ()  # nobody asked for them by name
    return tuple(line.strip() for line in lines if line.strip())


def is_labelled(path: Path) -> bool:
    """Whether data look labelled, by the names in them alone; damaged files may or may not."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {"x", "y"} <= set(archive.files)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return False
    if not path.is_dir():
        return path.is_file() and idx.find(path) is not None
    if (path / TABLE).is_file() or idx.find(path) is not None:
        return True
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir())


def open_unlabelled(path: Path, specs: Sequence[TensorSpec]) -> tuple[tuple[Path, ...], tuple[NDArray[Any], ...]]:
    """Find samples without looking at labels: (files of images, ()) or ((), one array per input).

    Raises:
        DatasetError: unreadable, empty, or not one array per input.

    """
    if not path.exists():
        raise DatasetError(f"{path}: there is no such folder or file")
    pair = idx.find(path)
    if pair is not None and len(specs) == 1:
        return (), (idx.read(pair[0]),)
    if path.is_dir():
        return list_images(path), ()
    if path.suffix in _ARRAYS:
        return (), samples.arrays(path, specs)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return (path,), ()
    raise DatasetError(f"{path}: data to compare outputs on are a folder of images, a .npy or a .npz")


def open_labelled(path: Path, *, names: Sequence[str] = (), classes: int, offset: int = 0) -> LabelledData:
    """Find samples and their classes.

    Args:
        path: a folder with a subfolder per class, with labels.csv or with MNIST's files, or an .npz with x and y.
        names: the model's labels, to place classes given by name; a labels.txt in the folder comes first.
        classes: how many outputs the model has.
        offset: added to every label given as a number (1 for models whose class 0 is "background").

    Raises:
        DatasetError: unlabelled, empty, or labels that the model has no output for.

    """
    if not path.exists():
        raise DatasetError(f"{path}: there is no such folder or file")
    if path.suffix == ".npz":
        data = _from_arrays(path, offset)
    elif (pair := idx.find(path)) is not None:
        data = _from_idx(path, pair, offset)
    elif not path.is_dir():
        raise DatasetError(f"{path}: {_SHAPE_OF_LABELLED}")
    else:
        known = read_labels(path / LABELS) if (path / LABELS).is_file() else tuple(names)
        if (path / TABLE).is_file():
            data = _from_table(path, known, offset)
        else:
            data = _from_folders(path, known, classes, offset)
    highest, lowest = max(data.labels), min(data.labels)
    if highest >= max(classes, 2) or lowest < 0:
        wrong = highest if highest >= classes else lowest
        raise DatasetError(f"{path}: label {wrong} has no output; the model has {classes} (0..{classes - 1})")
    return data


def _from_arrays(path: Path, offset: int) -> LabelledData:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not {"x", "y"} <= set(archive.files):
                held = ", ".join(archive.files) or "nothing"
                raise DatasetError(f"{path}: holds {held}; {_SHAPE_OF_LABELLED}")
            x, y = archive["x"], archive["y"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not a .npz of arrays that can be read") from error
    if y.ndim == 2 and y.shape[1] > 1:  # noqa: PLR2004 - one row of a one-hot matrix per sample
        y = y.argmax(axis=1)
    y = y.reshape(-1)
    if not x.ndim or len(x) != len(y) or not len(x):
        raise DatasetError(f"{path}: x has {len(x) if x.ndim else 0} samples and y {len(y)}")
    if y.dtype.kind not in "iu":
        raise DatasetError(f"{path}: y holds {y.dtype}, expected whole numbers: the index of each sample's class")
    if x.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: x holds {x.dtype}, expected numbers")
    return LabelledData(path=path, labels=tuple(int(label) + offset for label in y), array=x)


def _from_idx(path: Path, pair: tuple[Path, Path], offset: int) -> LabelledData:
    images, labels = (idx.read(each) for each in pair)
    if len(images) != len(labels) or labels.ndim != 1 or not len(labels):
        raise DatasetError(f"{pair[0]} holds {len(images)} images, {pair[1].name} {len(labels)} labels")
    return LabelledData(path=path, labels=tuple((labels.astype(np.int64) + offset).tolist()), array=images)


def _from_table(folder: Path, names: Sequence[str], offset: int) -> LabelledData:
    table = folder / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: not a table that can be read ({error})") from error
    column = 1
    if rows and rows[0] and rows[0][0].lower() in ("file", "path", "image", "filename"):
        column = _label_column(rows.pop(0))
    if not rows:
        raise DatasetError(f"{table}: holds no rows")
    places = _places(names)
    files, labels = [], []
    for number, row in enumerate(rows, 1):
        if len(row) <= column:
            raise DatasetError(f"{table}: row {number} has {len(row)} columns; expected file,label")
        file = folder / row[0]
        if not file.is_file():
            raise DatasetError(f"{table}: row {number} names {row[0]!r}, which is not there")
        files.append(file)
        labels.append(_place(row[column], places, offset, f"{table}: row {number}"))
    return LabelledData(path=folder, labels=tuple(labels), files=tuple(files))


def _label_column(header: Sequence[str]) -> int:
    lowered = [cell.lower() for cell in header]
    for wanted in _LABEL_COLUMNS:
        if wanted in lowered:
            return lowered.index(wanted)
    return 1


def _from_folders(folder: Path, names: Sequence[str], classes: int, offset: int) -> LabelledData:
    subfolders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not subfolders:
        raise DatasetError(f"{folder}: images without labels; {_SHAPE_OF_LABELLED}")
    numbered = all(entry.name.isdecimal() for entry in subfolders)
    if not names and not numbered and len(subfolders) != max(classes, 2):
        raise DatasetError(
            f"{folder}: has {len(subfolders)} class folders, the model {classes} outputs; put a labels.txt into the "
            "folder, or give --labels, to say which class is which output"
        )
    places = _places(names)
    files: list[Path] = []
    labels: list[int] = []
    for position, entry in enumerate(subfolders):
        found = list_images(entry)
        if names or numbered:
            label = _place(entry.name, places, offset, f"{folder}: folder {entry.name!r}")
        else:
            label = position + offset
        files += found
        labels += [label] * len(found)
    return LabelledData(path=folder, labels=tuple(labels), files=tuple(files))


def real_range(preprocessing: Preprocessing) -> tuple[float, float]:
    """Return the least and the greatest number that a preprocessing makes of pixels."""
    edges = [(pixel - m) / s for pixel in (0.0, 255.0) for m in preprocessing.mean for s in preprocessing.std]
    return min(edges), max(edges)


def refuse_foreign_range(preprocessing: Preprocessing, spec: TensorSpec) -> None:
    """Refuse a preprocessing that can't be the one a quantized input was calibrated with.

    Raises:
        UsageError: most pixels would saturate, or fall on a few levels.

    """
    if spec.quantization is None or spec.dtype not in ("uint8", "int8", "int16"):
        return
    scale, zero_point = spec.quantization.scales[0], spec.quantization.zero_points[0]
    limits = np.iinfo(spec.dtype)
    least, greatest = sorted((scale * (limits.min - zero_point), scale * (limits.max - zero_point)))
    low, high = real_range(preprocessing)
    shared = min(high, greatest) - max(low, least)
    if shared < _LEAST_UNSATURATED * (high - low) or shared < _LEAST_USED * (greatest - least):
        raise UsageError(
            f"--preprocess makes {low:g} to {high:g} of pixels, input {spec.name!r} was calibrated for {least:.3g} to "
            f"{greatest:.3g}; is it {_near(least, greatest)}?"
        )


def _near(least: float, greatest: float) -> str:
    """Name the preset whose range is nearest."""
    distances = {
        name: abs(low - least) + abs(high - greatest)
        for name, (low, high) in ((name, real_range(preset)) for name, preset in PRESETS.items())
    }
    return min(distances, key=lambda name: distances[name])


def _holds_pixels(path: Path, specs: Sequence[TensorSpec]) -> bool:
    """Whether arrays of bytes are meant for an input of real numbers."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        names = [] if isinstance(loaded, np.ndarray) else samples.inputs_among(loaded.files, len(specs))
        arrays = [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in names]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return False  # whoever loads it says what is wrong
    bytes_only = all(array.dtype == np.uint8 for array in arrays)
    return bytes_only and all(spec.dtype == "float32" for spec in specs)


def refuse_unprocessed(sample: NDArray[Any], preprocessing: Preprocessing, path: Path) -> None:
    """Floats are taken as already preprocessed; refuse (DatasetError) those it can't have made."""
    low, high = real_range(preprocessing)
    slack = _SLACK * (high - low)
    if sample.min() < low - slack or sample.max() > high + slack:
        raise DatasetError(
            f"{path}: its numbers reach from {sample.min():g} to {sample.max():g}, but --preprocess makes {low:g} to "
            f"{high:g}; floats are taken as already preprocessed, bytes (uint8) as pixels"
        )


def _places(names: Sequence[str]) -> Mapping[str, int]:
    return {_plain(name): index for index, name in reversed(list(enumerate(names)))}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _place(text: str, places: Mapping[str, int], offset: int, where: str) -> int:
    if _plain(text) in places:
        return places[_plain(text)]
    if text.lstrip("-").isdecimal():
        return int(text) + offset
    known = ", ".join(list(places)[:5])
    hint = f"the labels are {known} …" if places else "give --labels to say which class is which output"
    raise DatasetError(f"{where}: label {text!r} is not among the labels; {hint}")
