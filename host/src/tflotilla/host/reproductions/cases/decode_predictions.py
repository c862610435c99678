"""What a network sees on real photos, by name: top-3 in float and in int8."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child
from tflotilla.host.reproductions import making
from tflotilla.host.reproductions.reproduction import Reproduction, Row
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import images, preprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

TITLE = "Predictions on real photos: float32 and int8, top-3"
NEEDS = "an ImageNet .h5, imagenet_class_index.json, folders of photos"
MINUTES = 2
#: Networks for which weights are to be had, best first, with the preprocessing each was trained with.
_MODELS = (("squeezenet1.0_224.h5", "squeezenet"), ("mobilenet_v1_0.25_224.h5", "mobilenet"))
#: Photos of ImageNet classes; an elephant where there is one.
_PHOTOS = ("elephant", "llama", "panda", "flamingo", "dalmatian")
_TOP = 3


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    name, preprocess = next((each for each in _MODELS if desk.finds(each[0])), _MODELS[0])
    source = desk.find(name)
    labels = _labels(desk.find("imagenet_class_index.json"))
    folders = [desk.find(photo) for photo in _PHOTOS if desk.finds(photo)] or [desk.find(_PHOTOS[0])]
    photos = [photo for folder in folders for photo in images.list_images(folder)]
    made = making.files(
        desk,
        source,
        making.schemes("float32", "int8_io_uint8"),
        calibration=folders[0].parent,
        preprocess=preprocess,
    )
    floating, integer = (
        _answers(made[scheme], photos, preprocess, labels)
        for scheme in (QuantizationScheme.FLOAT32, QuantizationScheme.INT8_IO_UINT8)
    )
    rows = []
    for folder in folders:
        # The photo that float is surest of: one that it merely guesses at says nothing about int8.
        best = max((i for i, photo in enumerate(photos) if photo.parent == folder), key=lambda i: floating[i][0][1])
        picture = f"{folder.name}/{photos[best].name}"
        same = floating[best][0][0] == integer[best][0][0]
        rows += [
            Row(what=f"{picture}, float32", published="", ours=_spell(floating[best])),
            Row(what=f"{picture}, int8", published="same top-1", ours=_spell(integer[best]), holds=same),
        ]
    agreeing = sum(one[0][0] == other[0][0] for one, other in zip(floating, integer, strict=True))
    rows.append(Row(what="same top-1, all photos of these classes", published="", ours=f"{agreeing} of {len(photos)}"))
    return Reproduction(
        name="decode-predictions",
        title=TITLE,
        rows=tuple(rows),
        remarks=(
            f"{source.stem} with its published weights; int8 calibrated on 100 photos of that folder. Of each class "
            "the photo is shown that float32 is surest of.",
        ),
    )


def _labels(path: Path) -> list[str]:
    index: dict[str, list[str]] = json.loads(path.read_text())
    return [index[str(i)][1] for i in range(len(index))]


def _answers(
    model: Path, photos: Sequence[Path], preprocess: str, labels: Sequence[str]
) -> list[list[tuple[str, float]]]:
    answer: list[Any] = child.call(
        "tflotilla.host.reproductions.cases.decode_predictions:answer_here",
        {
            "model": str(model),
            "photos": [str(photo) for photo in photos],
            "preprocess": preprocess,
            "labels": list(labels),
        },
        doing=f"{making.LITERT} on {model.name}",
    )
    return [[(label, score) for label, score in top] for top in answer]


def answer_here(*, model: str, photos: Sequence[str], preprocess: str, labels: Sequence[str]) -> list[Any]:
    """Infer in this process; called in a child."""
    from pathlib import Path

    loaded = runtimes.find(making.LITERT).load(Path(model), runtimes.LoadOptions())
    prepare = Preprocessor(preprocessing.parse(preprocess, channels=3), loaded.inputs[0])
    pipeline = Pipeline(loaded, prepare, Answerer(Postprocessing(top_k=_TOP), loaded.outputs, tuple(labels)))
    tops = [pipeline.infer_image(images.open_image(Path(photo), draft_size=prepare.draft_size)).top for photo in photos]
    return [[(candidate.label, candidate.score) for candidate in top] for top in tops]


def _spell(top: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label} {score:.0%}" for label, score in top)
