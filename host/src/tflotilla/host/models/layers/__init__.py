"""Where a quantized TFLite file loses its numbers: per layer, for any such file, without TensorFlow.

    twin        a quantized file → the same network in float (pure)
    severed     a network → one whose operators are each fed by themselves (pure)
    matching    which operator of a float model a quantized file's operator was (pure)
    statistics  errors that add up sample by sample (pure)
    report      what is said
    measurement runs all this in a child process

What it does NOT do: change the file, or choose layers to keep in float.
"""

from tflotilla.host.models.layers.measurement import measure
from tflotilla.host.models.layers.report import (
    LayerError,
    LayerReport,
    OutputError,
    Sort,
    Unmeasured,
    WeightError,
    ranked,
)

__all__ = ["LayerError", "LayerReport", "OutputError", "Sort", "Unmeasured", "WeightError", "measure", "ranked"]
