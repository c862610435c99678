"""Real photos through real models: decoding, preprocessing, runtime and answer together, on every runtime present."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from tests import catalogue
from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.inference import runtime as port
from tflotilla.shared.inference.images import open_image
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor, parse
from tflotilla.shared.inference.runtime import LoadOptions

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Runtime

pytestmark = pytest.mark.catalogue


@pytest.fixture(params=sorted(port.ADAPTERS))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    name: str = request.param
    try:
        return port.find(name)
    except BoardError as error:
        pytest.skip(str(error))


def _accuracy(runtime: Runtime, how: str) -> float:
    """Top-5 accuracy on every tenth photo; the model counts ImageNet's classes from 1, 0 is the background."""
    model = catalogue.path("models/imagenet/coral/mobilenet_v1_0.25_128_quant.tflite")
    labels = catalogue.path("data/caltech101_imagenet_subset/labels.csv")
    loaded = runtime.load(model, LoadOptions())
    preprocessor = Preprocessor(parse(how), loaded.inputs[0])
    pipeline = Pipeline(loaded, preprocessor, Answerer(Postprocessing(top_k=5), loaded.outputs, ()))
    with labels.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[::10]
    for row in rows:
        image = open_image(labels.parent / row["file"], draft_size=preprocessor.draft_size)
        pipeline.submit_image(image, int(row["imagenet_index_0based"]) + 1)
    answers = [(one.tag, one.result.top) for one in pipeline.collect() if one.result is not None]
    return sum(tag in [candidate.index for candidate in top] for tag, top in answers) / len(rows)


@pytest.mark.parametrize("how", ["mobilenet", "mobilenet,resize=crop", "mobilenet,draft=true"])
def test_a_small_mobilenet_knows_most_photos_with_its_preprocessing(runtime: Runtime, how: str) -> None:
    assert _accuracy(runtime, how) > 0.5


def test_the_wrong_preprocessing_makes_it_blind(runtime: Runtime) -> None:
    assert _accuracy(runtime, "raw") < 0.1
