"""Limits that an integer file can't reach, and that runtimes refuse it for all the same. Pure, no TensorFlow.

Where activations almost vanish (weights that were never trained, dead layers), 6 / scale overflows 32 bits, and a
kernel that is to quantize the 6 of its RELU6 fails to prepare. What it does NOT do: touch a limit that says anything.
"""

from __future__ import annotations

from tflotilla.host.models import flatbuffer

_INT32_MAX = 2**31 - 1


def remove(data: bytes) -> bytes:
    """Make RELU6 a RELU where 6 is so far beyond what 16 bits can say that kernels refuse to quantize it.

    The output's own type ends long before 6 there, so both compute the same.
    """
    model = flatbuffer.read(data)
    functions = flatbuffer.SCHEMA.ActivationFunctionType
    changed = False
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            if getattr(operator.builtinOptions, "fusedActivationFunction", None) != functions.RELU6:
                continue
            parameters = graph.tensors[operator.outputs[0]].quantization
            if parameters is not None and parameters.scale is not None and 6.0 / parameters.scale[0] > _INT32_MAX:
                operator.builtinOptions.fusedActivationFunction = functions.RELU
                changed = True
    return flatbuffer.write(model) if changed else data
