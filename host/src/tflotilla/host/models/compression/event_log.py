"""Scalars for TensorBoard: the door to TensorFlow's event files. Runs in the training child.

TensorBoard itself needn't be installed to write them: its scalar summaries are a tensor with the plugin's name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class EventLog:
    """Appends scalars to an event file of its own in a folder."""

    def __init__(self, folder: Path) -> None:
        """Open the file. Raises InputError."""
        import tensorflow as tf
        from tensorflow.core.framework import summary_pb2

        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer: Any = tf.summary.create_file_writer(str(folder))
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f"{folder}: logs can't be written there: {_reason(error)}") from error
        self._folder = folder
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars")
        self._metadata = summary_pb2.SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_SCALAR)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one value per tag. Raises InputError when the disk doesn't take them."""
        import tensorflow as tf

        try:
            with self._writer.as_default():
                for tag, value in scalars.items():
                    tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=self._metadata)
            self._writer.flush()
        except tf.errors.OpError as error:
            raise InputError(f"{self._folder}: logs can't be written: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the system's words out of TensorFlow's, `function node; file; No space left on device …`."""
    words = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    parts = [part.strip() for part in re.split(r"[;\n\t]", str(words)) if part.strip()]
    return parts[1] if len(parts) > 1 else parts[0]
