"""A real detector's bundle: every way to run it reproduces the goldens in the probe, and no other detector does."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import catalogue
from tests.device.children import RUNTIMES, ask
from tflotilla.device.reports import ProbeReport, ProbeSpec
from tflotilla.host.bundles import archive, build, goldens
from tflotilla.host.bundles.build import BundleRequest
from tflotilla.host.models import samples
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.manifest import MODEL
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.inference import goldens as vectors
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.host.bundles.archive import Bundle

pytestmark = pytest.mark.slow
MODEL_FILE = "models/detection/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
MOBILENET = Preprocessing(mean=(127.5,), std=(127.5,))
COUNT = 6
CLASSES = 91


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The detector with goldens from photos, as a folder."""
    folder = tmp_path_factory.mktemp("detector")
    return build.create(
        BundleRequest(
            model=catalogue.path(MODEL_FILE),
            name="ssd",
            version="1.0.0",
            output=folder / "ssd",
            labels=catalogue.path("labels/coco_labels.txt"),
            preprocessing=MOBILENET,
            goldens=catalogue.path("data/images"),
            golden_count=COUNT,
        )
    )


def _probe(folder: Path, runtime: str, *, xnnpack: bool) -> ProbeReport:
    inference = codec.decode(InferenceConfig, {"runtime": runtime, "xnnpack": xnnpack}, "test")
    done = ask("probe", ProbeSpec(bundle=str(folder), inference=inference, runs=1))
    assert done.returncode == 0, done.stderr
    return codec.decode(ProbeReport, codec.parse_json(done.stdout, "probe"), "probe")


def test_goldens_of_a_detector_are_compared_as_detections(bundle: Bundle) -> None:
    policy = bundle.manifest.goldens

    assert "detections" == policy.comparison
    assert (COUNT, ()) == (policy.count, policy.not_reproduced_by)
    assert 0.3 <= policy.min_score < bundle.manifest.postprocessing.score_threshold
    assert 0.5 <= policy.min_iou <= 0.75
    assert 0.01 < policy.tolerance_absolute <= 0.05
    made = vectors.load(bundle.read("goldens.npz"))
    assert all(float(scores[0, 0]) >= policy.min_score for _boxes, _classes, scores, _count in made.outputs)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("xnnpack", [True, False], ids=["xnnpack", "plain"])
def test_every_way_to_run_it_reproduces_them(bundle: Bundle, runtime: str, *, xnnpack: bool) -> None:
    report = _probe(bundle.path, runtime, xnnpack=xnnpack)

    assert report.ok, report.reason
    assert report.worst_absolute is not None
    assert report.worst_absolute <= bundle.manifest.goldens.tolerance_absolute


def test_xnnpack_would_have_been_refused_number_by_number(bundle: Bundle) -> None:
    """What the set-wise comparison is for; when this fails, the runtimes have learned to agree."""
    if "ai-edge-litert" not in RUNTIMES or "tflite-runtime" not in RUNTIMES:
        pytest.skip("needs tflite-runtime and LiteRT")
    by_number = dataclasses.replace(bundle.manifest.goldens, comparison="elementwise")
    made = vectors.load(bundle.read("goldens.npz"))
    verdicts = [
        vectors.reproduce(runtime.load(bundle.read(MODEL), runtimes.LoadOptions()), made, by_number)
        for runtime in runtimes.present()
    ]

    assert not all(verdict.ok for verdict in verdicts)


def _constants(data: bytearray) -> dict[str, NDArray[np.uint8]]:
    """Return views of the model's constant tensors: writing to them writes to `data`."""
    import tflite

    model = tflite.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    found = {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        values: Any = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(values, np.ndarray):
            found[tensor.Name().decode()] = values
    return found


def _other_weights(data: bytearray) -> None:
    """Move every weight by up to 8 of 256 steps: another detector, trained as well, as it were."""
    generator = np.random.default_rng(7)
    for name, values in _constants(data).items():
        if "weights_quant" in name:
            moved = values.astype(np.int64) + generator.integers(-8, 9, values.size)
            values[:] = np.clip(moved, 0, 255)


def _shuffled_classes(data: bytearray) -> None:
    """Put the rows of all class predictors in another order: the same boxes with the same scores, under other names."""
    _reorder(data, [0, *(1 + np.random.default_rng(7).permutation(CLASSES - 1))])


def _cats_are_dogs(data: bytearray) -> None:
    """Exchange only the two; class 0 of the predictors is the background."""
    order = list(range(CLASSES))
    order[17], order[18] = 18, 17
    _reorder(data, order)


def _reorder(data: bytearray, order: list[int]) -> None:
    for name, values in _constants(data).items():
        if "ClassPredictor" in name:
            rows = values.size // _row_bytes(name, data)
            by_class = values.reshape(rows // CLASSES, CLASSES, -1)
            by_class[:] = by_class[:, order].copy()


def _row_bytes(name: str, data: bytearray) -> int:
    if name.endswith("bias"):
        return 4
    bias = _constants(data)[name.partition("weights")[0] + "Conv2D_bias"]
    return _constants(data)[name].size // (bias.size // 4)


def _mirrored_boxes(data: bytearray) -> None:
    """Exchange height and width in all anchors."""
    anchors = _constants(data)["anchors"].reshape(-1, 4)
    anchors[:] = anchors[:, [1, 0, 3, 2]].copy()


def _surer(data: bytearray) -> None:
    """Raise all scores a little: the same boxes of the same classes."""
    for name, values in _constants(data).items():
        if name.endswith("ClassPredictor/Conv2D_bias"):
            values.view(np.int32)[:] += 800


def _constant(data: bytearray) -> None:
    """Nothing but zeros where weights were."""
    for name, values in _constants(data).items():
        if "weights_quant" in name:
            values[:] = 0


@pytest.mark.parametrize(
    "spoil", [_other_weights, _shuffled_classes, _cats_are_dogs, _mirrored_boxes, _surer, _constant]
)
def test_another_detector_does_not(bundle: Bundle, tmp_path: Path, spoil: Callable[[bytearray], None]) -> None:
    data = bytearray(bundle.read(MODEL))
    spoil(data)
    assert bytes(data) != bundle.read(MODEL)
    members = {name: bundle.read(name) for name in bundle.manifest.files} | {MODEL: bytes(data)}
    other = archive.write(tmp_path / "other", build.seal(bundle.manifest, members, key=None))

    for runtime in RUNTIMES:
        report = _probe(other, runtime, xnnpack=True)
        assert not report.ok
        assert report.reason is not None
        assert f"golden vectors are not reproduced with {runtime}" in report.reason


def test_photos_on_which_runtimes_see_different_things_are_left_out(tmp_path: Path) -> None:
    """XNNPACK sees a second table under the hot dog, which other kernels take for the first one."""
    if {"ai-edge-litert", "tflite-runtime"} - set(RUNTIMES):
        pytest.skip("needs tflite-runtime and LiteRT")
    for name in ("hot_dog.jpg", "cat_720p.jpg", "owl.jpg"):
        shutil.copy(catalogue.path("data/images/coral") / name, tmp_path)
    model = catalogue.path(MODEL_FILE)
    found = inspect_model(model)
    photos = samples.load(tmp_path, found.inputs, MOBILENET, limit=3)

    made = goldens.make(model, photos, found.outputs, count=3, score_threshold=0.5)

    assert (0, 2) == made.agreement.chosen  # cat, hot dog, owl
    assert () == made.policy.not_reproduced_by
