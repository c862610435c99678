"""Accuracy-aware quantization: the smallest or fastest variant that loses no more than the user allows.

    search        what to try next, what to take (pure)
    operators     which operators can be kept in float, and what it costs (pure)
    half_weights  the kept layers' weights in two bytes each (pure)
    edges         integer inputs and outputs, whatever is kept inside (pure)
    intervals     what a drop measured on so many samples can claim (pure)
    splits        one half of the labelled data to search on, one to prove on
    variants      makes the files; with TensorFlow, in a child
    ranking       what each layer loses by itself
    judging       accuracy, mAP or likeness to float, size and latency of one variant
    run           the loop, in the child
    quantization  the request, the report, and the file that is handed over

What it does NOT do: retrain, or change the float model.
"""

from tflotilla.host.models.accuracy_aware.quantization import (
    NothingMeetsError,
    QuantizationReport,
    QuantizationRequest,
    quantize,
)
from tflotilla.host.models.accuracy_aware.steps import Step

__all__ = ["NothingMeetsError", "QuantizationReport", "QuantizationRequest", "Step", "quantize"]
