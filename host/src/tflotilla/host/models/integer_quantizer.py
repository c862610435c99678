"""TensorFlow's integer quantizers, run on a float TFLite file: ranges are measured once and used as often as wanted.

    Calibrated(float_file, samples).quantize(kept=("conv_7/Relu",))      int8
    Calibrated(float_file, samples).quantize_16x8()                      activations of 16 bits

The bytes are those that TFLiteConverter makes of the same file and samples: it takes the same steps, and measures the
ranges again for every scheme (and twice for int16x8). Imported inside a child process only: both quantizers crash on
some models.

What it does NOT do: decide what is quantized, judge the result, or change the types of the edges.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import convert
from tensorflow.lite.python.optimize import calibrator

from tflotilla.host.models import flatbuffer, idle_limits, stored_weights
from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray


_UNMEASURED = re.compile(r"should be recorded during calibration: Failed for tensor (\S+)")


class Calibrated:
    """A float TFLite file whose activations' ranges were measured."""

    def __init__(self, model: bytes, samples: Iterable[Sequence[NDArray[Any]]]) -> None:
        """Run the file on every sample: the input tensors of one inference, in the file's order, real-valued.

        Raises:
            ConversionError: TensorFlow's reference interpreter can't run the file, or there are no samples.

        """
        self._calibrator: Any
        try:
            self._calibrator = calibrator.Calibrator(calibrator.add_intermediate_tensors(model))
        except (ValueError, RuntimeError) as error:
            raise ConversionError(f"calibration: {' '.join(str(error).split())}") from error
        #: The file with minimum and maximum of every activation in its tensors' quantization parameters.
        self.model = b""
        self.extend(samples)

    def extend(self, samples: Iterable[Sequence[NDArray[Any]]]) -> None:
        """Widen the ranges by what more samples show. Raises ConversionError, as when it was made."""
        try:
            # Not ascontiguousarray: of a single number it makes an array of one.
            self.model = bytes(
                self._calibrator.calibrate(lambda: ([np.asarray(v, order="C") for v in sample] for sample in samples))
            )
        except (ValueError, RuntimeError) as error:
            raise ConversionError(f"calibration: {' '.join(str(error).split())}") from error

    def quantize(
        self,
        *,
        kept: Collection[str] = (),
        per_channel: bool = True,
        per_channel_dense: bool = True,
        verify: bool = False,
        deduplicate: bool = True,
    ) -> bytes:
        """Return the int8 file with float edges.

        Args:
            kept: operators that stay float, each named by its first output tensor in the float file.
            per_channel: one scale per output channel of a weight, else one per weight.
            per_channel_dense: the same for fully connected layers alone; runtimes before 2.17 know only one scale.
            verify: put a NumericVerify operator behind every quantized one, which compares it with float.
            deduplicate: keep equal constants once, as the converter does when all else is done.

        Raises:
            Exception: whatever TensorFlow's passes raise, naming the operator somewhere in pages of text.

        """
        made: bytes = convert.mlir_quantize(
            self.model,
            not per_channel,
            denylisted_nodes=sorted(kept) or None,
            enable_numeric_verify=verify,
            disable_per_channel_for_dense_layers=not per_channel_dense,
        )
        return bytes(convert.deduplicate_readonly_buffers(made) if deduplicate and not verify else made)

    def quantize_16x8(
        self, *, per_channel: bool = True, per_channel_dense: bool = True, deduplicate: bool = True
    ) -> bytes:
        """Return the file with activations of 16 bits, weights of 8 and float edges; what has no such kernel stays.

        Raises:
            Exception: as of `quantize`.

        """
        try:
            made = self._wide(per_channel=per_channel, per_channel_dense=per_channel_dense)
        except RuntimeError as error:
            unmeasured = _UNMEASURED.search(str(error))
            if unmeasured is not None:
                op = self._op_of(unmeasured.group(1))
                message = (
                    f"{op} (tensor {unmeasured.group(1)}) has no range, and to 16 bits nothing is quantized without one"
                )
                raise ConversionError(f"{message}; int8 keeps it float") from error
            if per_channel:
                raise
            # With one scale per weight that quantizer can't do depthwise convolutions.
            model = flatbuffer.read(self._wide(per_channel=True, per_channel_dense=True))
            stored_weights.to_one_scale(model, flatbuffer.read(self.model))
            made = flatbuffer.write(model)
        made = idle_limits.remove(made)
        return bytes(convert.deduplicate_readonly_buffers(made) if deduplicate else made)

    def _wide(self, *, per_channel: bool, per_channel_dense: bool) -> bytes:
        number = {dtype: np.dtype(dtype.as_numpy_dtype()).num for dtype in (tf.float32, tf.int16, tf.int64)}
        made: bytes = self._calibrator._calibrator.QuantizeModel(  # noqa: SLF001 - its public method calibrates again
            number[tf.float32],
            number[tf.float32],
            True,  # noqa: FBT003 - a C++ function without names: float stays allowed
            number[tf.int16],
            number[tf.int64],
            not per_channel,
            not per_channel_dense,
        )
        return bytes(made)

    def _op_of(self, name: str) -> str:
        """Return the op that makes a tensor."""
        model = flatbuffer.read(self.model)
        for graph in model.subgraphs:
            for operator in graph.operators or ():
                if name in [flatbuffer.tensor_name(graph.tensors[output]) for output in operator.outputs]:
                    return flatbuffer.op_name(model, operator)
        return "what is fed"
