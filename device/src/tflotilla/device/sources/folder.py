"""Images from a folder, in the order of their paths: again from the start, or then waiting for new ones.

With `loop` the folder is listed again at each start, so files come and go between rounds. Without it every file is
given once, and once more when its size or time of change says that it was written meanwhile.
A file that is no image is given all the same: whoever decodes it finds out, and says so.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device.sources import Item
from tflotilla.shared.contract.errors import ConfigError
from tflotilla.shared.inference.images import list_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.shared.contract.agent_config import SourceConfig
    from tflotilla.shared.contract.tensors import TensorSpec

#: Least time between two listings that found nothing: an empty folder must not keep a core busy.
_RELIST_S = 0.2


def open_source(config: SourceConfig, inputs: tuple[TensorSpec, ...]) -> FolderSource:
    """Open the folder. Raises ConfigError when it isn't one."""
    del inputs
    if not config.path:
        message = "source.path is missing: source.kind 'folder' needs the folder of images"
        raise ConfigError(message)
    folder = Path(config.path)
    if not folder.is_dir():
        message = f"source.path {config.path!r} is not a folder on this board"
        raise ConfigError(message)
    return FolderSource(folder, loop=config.loop)


class FolderSource:
    """See the module."""

    gives_images = True

    def __init__(self, folder: Path, *, loop: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._loop = loop
        self._clock = clock
        self._waiting: list[Path] = []
        self._given: dict[Path, tuple[int, int]] = {}
        self._quiet_until = clock()

    def next_item(self) -> Item | None:
        """Return the next image. Raises DatasetError when the folder holds none at all."""
        if not self._waiting:
            self._list()
        if not self._waiting:
            return None
        path = self._waiting.pop()
        # A name of bytes that are no UTF-8 must still fit into a message.
        name = os.fsencode(path.relative_to(self._folder)).decode(errors="replace")
        return Item(name=name, image=path)

    def close(self) -> None:
        """Nothing is held."""

    def _list(self) -> None:
        now = self._clock()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _RELIST_S
        found = list_images(self._folder)
        if not self._loop:
            state = {path: mark for path in found if (mark := _mark(path)) is not None}
            found = tuple(path for path in found if path in state and state[path] != self._given.get(path))
            self._given = state
        if found:
            self._quiet_until = now
        # Taken from the end, so that each costs the same however many there are.
        self._waiting = list(reversed(found))


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
