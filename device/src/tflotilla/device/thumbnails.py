"""What the model looked at a moment ago, small: one input now and then, as JPEG, for people who watch from afar.

Rules it keeps: only where `reporting.thumbnail_every_s` says so, at most that often; nothing of it happens while an
inference is timed, and only a small copy of the input waits for its answer; a picture that can't be made is none.
What it does NOT do: open images, or send.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import Thumbnail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from tflotilla.shared.contract.messages import Candidate

#: The longer side at most, in pixels.
SIDE = 128
_QUALITY = 70
_NS = 1_000_000_000
#: Pillow neither shrinks these smoothly nor writes them.
_INDEXED = frozenset({"1", "P", "PA"})
_WRITABLE = frozenset({"L", "RGB"})


class Thumbnails:
    """Decides whose turn it is, and makes the picture. Times are of one monotonic clock, in nanoseconds."""

    def __init__(self, every_s: float | None) -> None:
        self._every_ns = None if every_s is None else int(every_s * _NS)
        self._due_ns = 0
        self._kept: tuple[str, Image] | None = None

    def keep(self, item: str, image: Image, now_ns: int) -> None:
        """Keep a decoded input, small, until it is answered, if a picture is due. The image itself may be shrunk."""
        if self._every_ns is None or now_ns < self._due_ns:
            return
        self._due_ns = now_ns + self._every_ns
        small = shrunk(image)
        self._kept = None if small is None else (item, small)

    def body(self, item: str, time_s: float, top: Sequence[Candidate]) -> bytes | None:
        """Return the body of a Thumbnail message when this answer is the kept input's; None otherwise."""
        if self._kept is None or self._kept[0] != item:
            return None
        (_, image), self._kept = self._kept, None
        picture = jpeg(image)
        if picture is None:
            return None
        said = Thumbnail(item=item, time=time_s, jpeg=base64.b64encode(picture).decode(), top=tuple(top))
        fields = codec.encode(said)
        # The envelope has one, of the same moment; a key may not stand in a message twice.
        del fields["time"]
        return codec.canonical_json(fields)

    @property
    def waits(self) -> bool:
        """Whether an input is kept."""
        return self._kept is not None


def shrunk(image: Image) -> Image | None:
    """Return an image as a small one that JPEG can hold, None when Pillow can't make one of it."""
    try:
        if image.mode in _INDEXED:
            image = image.convert("RGB")
        # Most of the way by whole factors, which is several times as fast and looks the same at this size.
        image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
        return image if image.mode in _WRITABLE else image.convert("RGB")
    except (OSError, ValueError, MemoryError):
        return None


def jpeg(image: Image) -> bytes | None:
    """Return a small image as JPEG, None when that fails."""
    written = io.BytesIO()
    try:
        image.save(written, "JPEG", quality=_QUALITY)
    except (OSError, ValueError, MemoryError):
        return None
    return written.getvalue()
