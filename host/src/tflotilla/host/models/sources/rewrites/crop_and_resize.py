"""CropAndResize: every box of a picture, resized to one size. TFLite has no such operator; gathers and sums do it.

The formula is that of TensorFlow's kernel, in its order of float operations: sample j of `size` between the box's
edges a and b (1.0 is the middle of the last pixel of `length`) lies at

    a·(length - 1) + j·((b - a)·(length - 1) / (size - 1))        size > 1
    0.5·(a + b)·(length - 1)                                      size = 1

and what lies outside [0, length - 1] gives `extrapolation_value`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from tflotilla.host.models.sources.rewrites.graph import Graph, Node, Tensor

OPS = frozenset({"CropAndResize"})


def apply(graph: Graph) -> str | None:
    """Replace every such node. Raises ConversionError when the size of the crops is computed."""
    nodes = graph.of_ops(OPS)
    for node in nodes:
        size = graph.constant(node.input[3])
        if size is None:
            raise ConversionError(
                f"{node.name}: CropAndResize to a size that is computed; TFLite has no operator for it"
            )
        dtypes = [tf.as_dtype(node.attr["T"].type), tf.float32, tf.int32]
        build = _Builder(node, int(size[0]), int(size[1]))
        graph.replace(node, build, list(node.input[:3]), dtypes)
    return f"CropAndResize ({len(nodes)}) is computed by gathers" if nodes else None


class _Builder:
    def __init__(self, node: Node, height: int, width: int) -> None:
        self._size = (height, width)
        self._nearest = node.attr["method"].s == b"nearest"
        self._extrapolation = node.attr["extrapolation_value"].f

    def __call__(self, image: Tensor, boxes: Tensor, box_indices: Tensor) -> Tensor:
        """Return [boxes, height, width, channels] float32 of image [N, H, W, C], boxes [boxes, 4], indices [boxes]."""
        dimensions = tf.shape(image)
        y0, x0, y1, x1 = (boxes[:, i : i + 1] for i in range(4))
        y, y_inside = self._positions(y0, y1, dimensions[1], self._size[0])
        x, x_inside = self._positions(x0, x1, dimensions[2], self._size[1])
        rows = tf.reshape(tf.cast(image, tf.float32), [-1, image.shape[-1] or dimensions[3]])
        top = box_indices[:, tf.newaxis] * dimensions[1]

        def pixels(row: Tensor, column: Tensor) -> Tensor:
            line = (top + row) * dimensions[2]
            return tf.gather(rows, line[:, :, tf.newaxis] + column[:, tf.newaxis, :])

        if self._nearest:
            # roundf: halves away from zero, and no position that counts is negative.
            value = pixels(tf.cast(tf.floor(y + 0.5), tf.int32), tf.cast(tf.floor(x + 0.5), tf.int32))
        else:
            upper, left = tf.cast(tf.floor(y), tf.int32), tf.cast(tf.floor(x), tf.int32)
            lower, right = tf.cast(tf.math.ceil(y), tf.int32), tf.cast(tf.math.ceil(x), tf.int32)
            down = (y - tf.floor(y))[:, :, tf.newaxis, tf.newaxis]
            across = (x - tf.floor(x))[:, tf.newaxis, :, tf.newaxis]
            above, above_right = pixels(upper, left), pixels(upper, right)
            below, below_right = pixels(lower, left), pixels(lower, right)
            over = above + (above_right - above) * across
            under = below + (below_right - below) * across
            value = over + (under - over) * down
        inside = (y_inside[:, :, tf.newaxis] * x_inside[:, tf.newaxis, :])[:, :, :, tf.newaxis]
        value = value * inside
        if self._extrapolation:
            value += (1.0 - inside) * self._extrapolation
        return value

    @staticmethod
    def _positions(begin: Tensor, end: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return [boxes, size]: where the samples lie, clipped to the picture, and 1.0 where they needn't be."""
        last = tf.cast(length - 1, tf.float32)
        if size > 1:
            scale = (end - begin) * last / float(size - 1)
            steps = tf.constant([[float(i) for i in range(size)]], tf.float32)
            at = begin * last + steps * scale
        else:
            at = 0.5 * (begin + end) * last
        clipped = tf.minimum(tf.maximum(at, 0.0), last)
        return clipped, tf.cast(tf.equal(at, clipped), tf.float32)
