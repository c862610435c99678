"""Real sources convert in every scheme that they admit, and what comes out computes on both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import catalogue
from tests.host.models import made_sources
from tflotilla.host.models import child, fidelity, sources
from tflotilla.shared.contract.tensors import QuantizationScheme

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.catalogue]

FEW = ("float32", "dynamic_range", "int8_io_uint8")
ALL = tuple(scheme.value for scheme in QuantizationScheme)
PHOTOS = "data/caltech101_imagenet_subset"
#: File → schemes, calibration (a catalogue folder or the shape of noise), preprocessing, options.
SOURCES: dict[str, tuple[tuple[str, ...], str | tuple[int, ...] | None, str | None, dict[str, Any]]] = {
    "models/imagenet/mobilenet_v1_0.25_224.h5": (FEW, PHOTOS, "mobilenet", {}),
    "models/imagenet/mobilenet_v1_0.25_128_tf1/frozen_graph.pb": (FEW, PHOTOS, "mobilenet", {}),
    "models/imagenet/mobilenet_v1_0.25_128_tf1/quantized_graph.pb": (("float32",), None, None, {}),
    "models/teachable_machine/keras_model.h5": (("dynamic_range", "int8_io_uint8"), PHOTOS, "mobilenet", {}),
    "models/mnist/mnist_model.h5": (FEW, (28, 28, 1), None, {}),
    "models/mnist/mnist_model52%.keras": (ALL, (28, 28), None, {}),
    "models/mlperf_tiny/resnet8_cifar10/pretrainedResnet.h5": (FEW, PHOTOS, "raw", {}),
    "models/mlperf_tiny/ad01_autoencoder/ad01.h5": (FEW, (640,), None, {}),
    "models/mlperf_tiny/kws_dscnn/kws_ref_model": (ALL, (49, 10, 1), None, {}),
    "models/keras/@lstm_model.keras": (ALL, (2, 1), None, {}),
    "models/keras/@resnet_model.keras": (FEW, (2, 1), None, {}),
    "models/keras/@transformer_model.keras": (("float32", "dynamic_range", "int8"), (2, 1), None, {}),
    "models/keras/colourspark_autoencoder.keras": (("dynamic_range", "int8_io_uint8"), (96, 96, 1), None, {}),
    "models/savedmodel/mediapipe_tiny": (("float32",), None, None, {}),
    "models/savedmodel/regression_saved_model": (("float32",), None, None, {"input_shapes": {"": [1, 1]}}),
    "models/kws_tf1/DS_CNN_S.pb": (("float32", "dynamic_range"), None, None, {"input_arrays": ["Mfcc"]}),
    "models/tf1_misc/fc-layers_frozen.pb": (FEW, (784,), None, {}),
    "models/tf1_misc/mediapipe_frozen_graph_def.pb": (("float32",), None, None, {"input_arrays": ["a", "b"]}),
    "models/detection/face_RFB-320_float.tflite": (FEW, PHOTOS, "mobilenet", {}),
    "models/imagenet/mobilenet_v1_0.25_224_1_metadata_1.tflite": (("float16", "int16x8"), PHOTOS, "mobilenet", {}),
}
#: What no runtime without TensorFlow's own kernels can run: file → options, error, words.
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "models/detection/mtcnn.pb": (
        {},
        "UsageError",
        "input 'input' is ?,?,3; fix what is unknown: --input-shapes input=N,N,3",
    ),
    "models/kws_tf1/DNN_S.pb": ({}, "ConversionError", "begin after the decoding: --input-arrays Mfcc"),
    "models/tf1_misc/gru_frozen.pb": (
        {},
        "UsageError",
        "input 'X' is of unknown shape; give it with --input-shapes X=",
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Everything in one child, one load of TensorFlow."""
    folder = tmp_path_factory.mktemp("made")
    cases: dict[str, dict[str, Any]] = {}
    for file, (schemes, calibration, preprocess, options) in SOURCES.items():
        path = catalogue.path(file)
        data = None
        if isinstance(calibration, tuple):
            data = folder / f"{len(cases)}.npy"
            np.save(data, np.random.default_rng(1).random((16, *calibration), dtype=np.float32))
        elif calibration is not None:
            data = catalogue.path(calibration)
        cases[str(len(cases))] = made_sources.case(path, sources.detect(path), schemes, data, preprocess, **options)
    for file, (options, _, _) in IMPOSSIBLE.items():
        path = catalogue.path(file)
        cases[str(len(cases))] = made_sources.case(path, sources.detect(path), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        found = child.call("tests.host.models.made_sources:attempt", {"cases": cases, "folder": str(folder)})
    return folder, found


@pytest.mark.parametrize("file", SOURCES)
def test_a_real_source_converts_and_computes_on_both_runtimes(file: str, made: tuple[Path, dict[str, Any]]) -> None:
    folder, found = made
    number = str(list(SOURCES).index(file))
    assert found[number].get("message") is None
    assert found[number]["failures"] == {}
    files = {QuantizationScheme(scheme): folder / number / f"{scheme}.tflite" for scheme in SOURCES[file][0]}

    for runtime in ("tflite-runtime", "ai-edge-litert"):
        pytest.importorskip(runtime.replace("-", "_"))
        for scheme, entry in fidelity.measure(files, folder / number / "reference.npz", runtime).items():
            assert entry.reason is None, f"{scheme.value} on {runtime}"
            assert (entry.sqnr_db or 0) > 1, f"{scheme.value} on {runtime}"


@pytest.mark.parametrize("file", IMPOSSIBLE)
def test_what_is_impossible_names_the_op_or_the_way(file: str, made: tuple[Path, dict[str, Any]]) -> None:
    _, kind, words = IMPOSSIBLE[file]
    found = made[1][str(len(SOURCES) + list(IMPOSSIBLE).index(file))]

    assert found.get("error") == kind
    assert words in (found["message"] if kind else found["failures"]["float32"])
