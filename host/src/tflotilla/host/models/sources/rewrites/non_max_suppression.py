"""NonMaxSuppression of versions that TFLite doesn't know: it has V4 (padded, with a count) and V5 only.

V1 to V3 return as many indices as there are boxes to keep; so does V4 once its padding is cut away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.models.sources.rewrites.graph import Graph, Tensor

OPS = frozenset({"NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3"})
_NO_THRESHOLD = float(np.finfo(np.float32).min)


def apply(graph: Graph) -> str | None:
    """Replace every such node."""
    nodes = graph.of_ops(OPS)
    for node in nodes:
        # V1 keeps its threshold in an attribute.
        written = node.attr["iou_threshold"].f if node.op == "NonMaxSuppression" else None
        dtypes = [tf.float32, tf.float32, tf.int32, tf.float32, tf.float32][: len(node.input)]
        graph.replace(node, _builder(written), list(node.input), dtypes)
    return f"NonMaxSuppression ({len(nodes)}) is computed by its version 4" if nodes else None


def _builder(written: float | None) -> Callable[..., Tensor]:
    def build(
        boxes: Tensor,
        scores: Tensor,
        most: Tensor,
        overlap: Tensor | None = None,
        least: Tensor = _NO_THRESHOLD,
    ) -> Tensor:
        kept, count = tf.raw_ops.NonMaxSuppressionV4(
            # The converter wants to know the rank, and behind a loop it often doesn't.
            boxes=tf.reshape(boxes, [-1, 4]),
            scores=tf.reshape(scores, [-1]),
            max_output_size=most,
            iou_threshold=tf.constant(written) if overlap is None else overlap,
            score_threshold=least,
            pad_to_max_output_size=True,
        )
        return kept[:count]

    return build
