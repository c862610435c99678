"""Pictures with labelled boxes, as people have them: boxes.csv, COCO's JSON, Pascal VOC's XML.

    boxes.csv in a folder     file,label,xmin,ymin,xmax,ymax; in pixels, or all of them in 0..1; a head may name the
                              columns in another order (filename, class and name are understood too), and difficult
                              or iscrowd; a row with nothing but a file is a picture with nothing in it
    one COCO .json            instances: images, annotations (bbox, category_id, iscrowd), categories
    VOC .xml files            beside the pictures, or in Annotations/ with the pictures in JPEGImages/

Rules it keeps: nothing is guessed, a box that can't be right is an error that names its row; boxes come out as shares
of the picture: ymin, xmin, ymax, xmax. What it does NOT do: decode pictures, or judge.
"""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tflotilla.host.models import samples
from tflotilla.host.models.average_precision import LabelledBox
from tflotilla.shared.contract.errors import DatasetError
from tflotilla.shared.inference.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TABLE = "boxes.csv"
FORMS = "a folder with boxes.csv (file,label,xmin,ymin,xmax,ymax), COCO annotations (.json) or Pascal VOC .xml"
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("file", "label", *_EDGES)
_SYNONYMS = {
    "filename": "file",
    "image": "file",
    "path": "file",
    "class": "label",
    "name": "label",
    "class_name": "label",
}
_IGNORED = ("difficult", "iscrowd", "crowd")
_COCO = {"images", "annotations"}
#: Labelling tools round: a box may end so far outside of its picture.
_SLACK_PIXELS = 2.0
_SLACK_SHARE = 0.01
_TRUE = ("1", "true", "yes")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedData:
    """Pictures and what is in them; one entry of `boxes` per file."""

    path: Path
    files: tuple[Path, ...]
    boxes: tuple[tuple[LabelledBox, ...], ...]

    def take(self, limit: int | None) -> BoxedData:
        """Return `limit` pictures spread evenly over all, or all."""
        total = len(self.files)
        if limit is None or limit >= total:
            return self
        chosen = samples.evenly(total, limit)
        return BoxedData(
            path=self.path,
            files=tuple(self.files[i] for i in chosen),
            boxes=tuple(self.boxes[i] for i in chosen),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """A box as it was read; `edges` are xmin, ymin, xmax, ymax."""

    label: str
    edges: tuple[float, float, float, float]
    where: str
    #: Of its category, to place it by where no labels are known.
    number: int | None = None
    ignored: bool = False
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    file: Path
    boxes: tuple[_Box, ...]
    #: Width and height in pixels where the labels say them; else the picture is asked.
    size: tuple[int, int] | None = None


def has_boxes(path: Path) -> bool:
    """Whether data look like labelled boxes, by the names of the files alone (and a JSON's first keys)."""
    if path.is_file():
        return path.suffix.lower() == ".json" or path.name == TABLE
    return path.is_dir() and ((path / TABLE).is_file() or bool(_coco_files(path)) or bool(_voc_files(path)))


def open_boxed(path: Path, *, names: Mapping[int, str], offset: int = 0) -> BoxedData:
    """Read pictures and boxes.

    Args:
        path: one of the forms above.
        names: the detector's classes by their numbers; empty where nobody said.
        offset: added to labels given as numbers, -1 for COCO's categories, which count from 1.

    Raises:
        DatasetError: unreadable, empty, a label that is no class, or a box that can't be right; names file and row.

    """
    in_pixels = True
    if path.name == TABLE or (path / TABLE).is_file():
        table = path if path.name == TABLE else path / TABLE
        pictures = _from_table(table)
        in_pixels = not _are_shares(pictures, table)
    elif path.suffix.lower() == ".json":
        pictures = _from_coco(path)
    elif coco := _coco_files(path):
        if len(coco) > 1:
            raise DatasetError(f"{path}: has {len(coco)} files of annotations; give one of them: {coco[0]}")
        pictures = _from_coco(coco[0])
    elif voc := _voc_files(path):
        pictures = [_from_voc(file) for file in voc]
    else:
        raise DatasetError(f"{path}: no labelled boxes; a detector is judged on {FORMS}")
    if not any(picture.boxes for picture in pictures):
        raise DatasetError(f"{path}: holds no boxes")
    places = {_plain(name): index for index, name in reversed(list(names.items()))}

    def place(box: _Box) -> LabelledBox:
        return LabelledBox(index=_class_of(box, places, offset), box=box.edges, ignored=box.ignored, crowd=box.crowd)

    return BoxedData(
        path=path,
        files=tuple(picture.file for picture in pictures),
        boxes=tuple(_normalized(picture, place, in_pixels=in_pixels) for picture in pictures),
    )


def read_label_map(path: Path) -> dict[int, str]:
    """Read a detector's labels by class: a line each, or `ID NAME` lines whose numbers may leave gaps.

    A first line of `???` or `background` is the class that TFLite_Detection_PostProcess doesn't count, and dropped.

    Raises:
        DatasetError: it can't be read or is empty.

    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a text of labels that can be read ({error})") from error
    return label_map([line for line in lines if line], str(path))


def label_map(lines: Sequence[str], where: str) -> dict[int, str]:
    """Return labels by class; see `read_label_map`."""
    if not lines:
        raise DatasetError(f"{where}: holds no labels")
    parts = [line.replace(":", " ", 1).split(maxsplit=1) for line in lines]
    numbers = [int(part[0]) if len(part) > 1 and part[0].isdecimal() else -1 for part in parts]
    if min(numbers) >= 0 and numbers == sorted(set(numbers)):
        return {number: part[1] for number, part in zip(numbers, parts, strict=True)}
    skipped = 1 if _plain(lines[0]) in ("???", "background") else 0
    return dict(enumerate(lines[skipped:]))


def _class_of(box: _Box, places: Mapping[str, int], offset: int) -> int:
    if _plain(box.label) in places:
        return places[_plain(box.label)]
    number = box.label if places or box.number is None else str(box.number)
    if number.lstrip("-").isdecimal():
        index = int(number) + offset
        if index < 0:
            raise DatasetError(f"{box.where}: label {number} becomes class {index}; classes begin at 0")
        return index
    known = ", ".join(sorted(places, key=lambda name: places[name])[:5])
    hint = f"the labels are {known} …" if places else "give --labels to say which class is which number"
    raise DatasetError(f"{box.where}: label {box.label!r} is not among the labels; {hint}")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _normalized(picture: _Picture, place: Callable[[_Box], LabelledBox], *, in_pixels: bool) -> tuple[LabelledBox, ...]:
    width, height = (1, 1)
    if in_pixels and picture.boxes:
        width, height = picture.size or size_of(picture.file)
    return tuple(_share(box, place(box), width, height, in_pixels=in_pixels) for box in picture.boxes)


def _share(box: _Box, placed: LabelledBox, width: int, height: int, *, in_pixels: bool) -> LabelledBox:
    left, top, right, bottom = box.edges
    slack = _SLACK_PIXELS if in_pixels else _SLACK_SHARE
    if left < -slack or top < -slack or right > width + slack or bottom > height + slack:
        shown = f"{left:g},{top:g},{right:g},{bottom:g}"
        size = f"{width}x{height} pixels" if in_pixels else "0..1"
        raise DatasetError(f"{box.where}: box {shown} lies outside of its picture of {size}")
    edges = (top / height, left / width, bottom / height, right / width)
    return LabelledBox(
        index=placed.index,
        box=tuple(min(max(edge, 0.0), 1.0) for edge in edges),
        ignored=placed.ignored,
        crowd=placed.crowd,
    )


def size_of(file: Path) -> tuple[int, int]:
    """Return a picture's width and height, from its head. Raises DatasetError."""
    try:
        with Image.open(file) as image:
            return image.size
    except Exception as error:  # decoders raise what they like on foreign bytes
        raise DatasetError(f"{file} is not an image that can be read") from error


def _edges(values: Sequence[Any], where: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(value) for value in values)
    except (TypeError, ValueError):
        raise DatasetError(f"{where}: {values!r} are not the four numbers of a box") from None
    if not all(math.isfinite(edge) for edge in (left, top, right, bottom)):
        raise DatasetError(f"{where}: a box holds NaN or infinity")
    if right <= left or bottom <= top:
        raise DatasetError(
            f"{where}: box {left:g},{top:g},{right:g},{bottom:g} has no area; expected xmin < xmax and ymin < ymax"
        )
    return left, top, right, bottom


def _are_shares(pictures: Iterable[_Picture], table: Path) -> bool:
    """Whether edges are shares: no box in pixels is as small as one pixel and lies in the corner too."""
    greatest = max((max(box.edges) for picture in pictures for box in picture.boxes), default=0.0)
    if 1.0 + _SLACK_SHARE < greatest <= _SLACK_PIXELS:
        raise DatasetError(f"{table}: boxes reach to {greatest:g}: too far for shares of 0..1, too near for pixels")
    return greatest <= 1.0 + _SLACK_SHARE


def _from_table(table: Path) -> list[_Picture]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: not a table that can be read ({error})") from error
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    if not numbered:
        raise DatasetError(f"{table}: holds no rows")
    columns = list(_COLUMNS)
    head = [_SYNONYMS.get(cell.lower(), cell.lower()) for cell in numbered[0][1]]
    if "file" in head:
        columns = head
        numbered = numbered[1:]
        if missing := [name for name in _COLUMNS if name not in head]:
            raise DatasetError(f"{table}: its head lacks {', '.join(missing)}; expected {','.join(_COLUMNS)}")
    boxes: dict[str, list[_Box]] = {}
    for number, row in numbered:
        where = f"{table}: row {number}"
        cells = dict(zip(columns, row, strict=False))
        name = cells.get("file", "")
        if not (table.parent / name).is_file() or not name:
            raise DatasetError(f"{where} names {name!r}, which is not there")
        found = boxes.setdefault(name, [])
        if not any(cells.get(column) for column in _COLUMNS[1:]):
            continue
        if any(not cells.get(column) for column in _COLUMNS):
            raise DatasetError(f"{where} has {len(row)} columns; expected {','.join(_COLUMNS)}")
        ignored = any(cells.get(column, "").lower() in _TRUE for column in _IGNORED[:1])
        crowd = any(cells.get(column, "").lower() in _TRUE for column in _IGNORED[1:])
        edges = _edges([cells[edge] for edge in _EDGES], where)
        found.append(_Box(label=cells["label"], edges=edges, where=where, ignored=ignored, crowd=crowd))
    return [_Picture(file=table.parent / name, boxes=tuple(found)) for name, found in sorted(boxes.items())]


def _coco_files(folder: Path) -> list[Path]:
    places = (folder, folder / "annotations") if folder.is_dir() else ()
    return [file for place in places for file in sorted(place.glob("*.json")) if _is_coco(file)]


def _is_coco(file: Path) -> bool:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.keys() >= _COCO


def _from_coco(file: Path) -> list[_Picture]:
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise DatasetError(f"{file}: can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not JSON that can be read ({error})") from error
    if not isinstance(document, dict) or not document.keys() >= _COCO:
        raise DatasetError(f"{file}: no COCO annotations; they hold images and annotations")
    try:
        categories = {entry["id"]: str(entry.get("name", entry["id"])) for entry in document.get("categories", ())}
        boxes: dict[Any, list[_Box]] = {entry["id"]: [] for entry in document["images"]}
        for number, entry in enumerate(document["annotations"]):
            where = f"{file}: annotation {entry.get('id', number)}"
            if entry["image_id"] not in boxes:
                raise DatasetError(f"{where} names image {entry['image_id']!r}, which is not among the images")
            boxes[entry["image_id"]].append(_coco_box(entry, categories, where))
        return [
            _Picture(
                file=_coco_picture(file, str(entry["file_name"])),
                boxes=tuple(boxes[entry["id"]]),
                size=(int(entry["width"]), int(entry["height"])) if {"width", "height"} <= entry.keys() else None,
            )
            for entry in sorted(document["images"], key=lambda each: str(each["file_name"]))
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f"{file}: no COCO annotations: {type(error).__name__} at {error}") from error


def _coco_box(entry: Mapping[str, Any], categories: Mapping[Any, str], where: str) -> _Box:
    number = entry["category_id"]
    if categories and number not in categories:
        raise DatasetError(f"{where} has category {number!r}, which is not among the categories")
    if len(entry["bbox"]) != len(_EDGES):
        raise DatasetError(f"{where}: bbox {entry['bbox']!r} is not x,y,width,height")
    left, top, width, height = (float(value) for value in entry["bbox"])
    return _Box(
        label=categories.get(number, str(number)),
        edges=_edges((left, top, left + width, top + height), where),
        where=where,
        number=number if isinstance(number, int) else None,
        crowd=bool(entry.get("iscrowd", 0)),
        ignored=bool(entry.get("ignore", 0)),
    )


def _coco_picture(file: Path, name: str) -> Path:
    # instances_val2017.json lies in annotations/, its pictures in val2017/ beside that.
    split = file.stem.rpartition("_")[2]
    above = file.parent.parent
    places = (file.parent, file.parent / "images", above / "images", above / split, above)
    for place in places:
        if (place / name).is_file():
            return place / name
    raise DatasetError(f"{file}: names {name!r}, which is not beside it, nor in images/")


def _voc_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    place = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    return sorted(place.glob("*.xml"))


def _from_voc(file: Path) -> _Picture:
    try:
        root = ET.parse(file).getroot()  # noqa: S314 - expat expands no external entities, and limits internal ones
    except (OSError, ET.ParseError) as error:
        raise DatasetError(f"{file}: not XML that can be read ({error})") from error
    boxes = []
    for number, entry in enumerate(root.iter("object")):
        where = f"{file}: object {number}"
        bounds = entry.find("bndbox")
        if bounds is None or not (entry.findtext("name") or "").strip():
            raise DatasetError(f"{where} lacks its name or its bndbox")
        boxes.append(
            _Box(
                label=(entry.findtext("name") or "").strip(),
                edges=_edges([bounds.findtext(edge) for edge in _EDGES], where),
                where=where,
                ignored=(entry.findtext("difficult") or "").strip() in _TRUE,
            )
        )
    return _Picture(file=_voc_picture(file, (root.findtext("filename") or "").strip()), boxes=tuple(boxes))


def _voc_picture(file: Path, name: str) -> Path:
    names = [name] if name else []
    names += [file.stem + suffix for suffix in sorted(IMAGE_SUFFIXES)]
    for place in (file.parent, file.parent.parent / "JPEGImages"):
        for each in names:
            if (place / each).is_file():
                return place / each
    raise DatasetError(f"{file}: its picture {name or file.stem!r} is not beside it, nor in JPEGImages/")
