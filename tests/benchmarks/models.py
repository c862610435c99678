"""The models that are measured: found beside the project where it has them, else the tests' own, which is tiny."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests import catalogue, models_made
from tests.device import running_bundles
from tflotilla.device.loading import zeros
from tflotilla.shared.contract.manifest import GoldenPolicy
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.inference import goldens, runtime
from tflotilla.shared.inference.runtime import LoadOptions

#: Where `python -m tests.benchmarks.mobilenet` puts the model of the promise.
MADE = Path(__file__).resolve().parents[2] / ".cache" / "mobilenet_v2_1.0_224_int8.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One model of the catalogue (`relative`), made here (`made`), or the one that the tests carry."""

    title: str
    relative: str | None = None
    made: Path | None = None
    #: Slow models are measured so many times longer: few rounds say little.
    patience: int = 1

    @property
    def hint(self) -> str:
        """How to get it."""
        return "make it with `python -m tests.benchmarks.mobilenet`" if self.made else "set TFLOTILLA_CATALOGUE"

    def read(self) -> bytes | None:
        """Return the model; None where this machine doesn't have it."""
        if self.relative is None and self.made is None:
            return models_made.read("tiny_classifier")
        path = self.made or catalogue.ROOT / str(self.relative)
        return path.read_bytes() if path.is_file() else None


TINY = Measured(title="tiny classifier (uint8, 8x8)")
DS_CNN = Measured(title="DS-CNN keyword spotting (int8)", relative="models/mlperf_tiny/kws_dscnn/kws_ref_model.tflite")
RESNET_8 = Measured(
    title="ResNet-8 CIFAR-10 (int8)", relative="models/mlperf_tiny/resnet8_cifar10/pretrainedResnet_quant.tflite"
)
#: The catalogue has a uint8 one alone, which LiteRT runs three times slower: this one is made here, once.
MOBILENET_V2 = Measured(title="MobileNetV2 1.0 224 (int8)", made=MADE, patience=4)


def write_bundle(folder: Path, model: bytes, runtime_name: str, *, tolerance_lsb: int = 1) -> Path:
    """Write a bundle whose one golden vector is what this runtime says to zeros."""
    loaded = runtime.find(runtime_name).load(model, LoadOptions())
    inputs = zeros(loaded.inputs)
    loaded.set_inputs(inputs)
    loaded.invoke()
    vectors = goldens.GoldenVectors(inputs=(inputs,), outputs=(tuple(np.array(o) for o in loaded.get_outputs()),))
    return running_bundles.write(
        folder,
        model=model,
        vectors=goldens.save(vectors),
        changes={
            "inputs": loaded.inputs,
            "outputs": loaded.outputs,
            "goldens": GoldenPolicy(count=1, runtime=runtime_name, tolerance_lsb=tolerance_lsb),
            "postprocessing": Postprocessing(top_k=3),
            "preprocessing": None,
        },
    )
