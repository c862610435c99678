"""Thumbnails: at most as often as allowed, small, of the input that was answered, and never in the way."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from tflotilla.device.thumbnails import SIDE, Thumbnails, jpeg, shrunk
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.messages import Candidate, Thumbnail

TOP = (Candidate(label="cat", index=3, score=0.75),)
SECOND = 1_000_000_000


def picture(mode: str = "RGB", size: tuple[int, int] = (640, 480)) -> Image.Image:
    return Image.effect_noise(size, 80).convert(mode)


def read(body: bytes) -> Thumbnail:
    """Read a body as it goes out: within an envelope."""
    envelope = b'{"schema":1,"board":"pi-1","boot":"b","seq":0,"time":12.5,'
    found = messages.parse("tflotilla/t/pi-1/thumbnail", envelope + body[1:])[1].body
    assert isinstance(found, Thumbnail)
    return found


def test_a_thumbnail_shows_what_was_answered() -> None:
    thumbnails = Thumbnails(1.0)
    thumbnails.keep("cat.jpg", picture(), 0)
    body = thumbnails.body("cat.jpg", 12.5, TOP)

    assert body is not None
    said = read(body)
    assert (said.item, said.time, said.top) == ("cat.jpg", 12.5, TOP)
    with Image.open(io.BytesIO(base64.b64decode(said.jpeg))) as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE * 3 // 4))
    assert len(body) < 16_000


def test_the_envelope_s_time_is_not_said_twice() -> None:
    thumbnails = Thumbnails(1.0)
    thumbnails.keep("cat.jpg", picture(), 0)

    assert set(json.loads(thumbnails.body("cat.jpg", 12.5, TOP) or b"")) == {"item", "jpeg", "top"}


def test_the_next_one_is_not_due_before_its_time() -> None:
    thumbnails, shown = Thumbnails(2.0), []
    for tenth in range(50):
        thumbnails.keep(f"{tenth}", picture(size=(8, 8)), tenth * SECOND // 10)
        if thumbnails.body(f"{tenth}", 0.0, TOP):
            shown.append(tenth)

    assert shown == [0, 20, 40]


def test_an_answer_to_another_input_is_not_its() -> None:
    thumbnails = Thumbnails(1.0)
    thumbnails.keep("cat.jpg", picture(), 0)

    assert thumbnails.body("dog.jpg", 1.0, TOP) is None
    assert thumbnails.waits
    assert thumbnails.body("cat.jpg", 1.0, TOP) is not None
    assert not thumbnails.waits
    assert thumbnails.body("cat.jpg", 1.0, TOP) is None


def test_where_it_is_not_allowed_nothing_is_kept() -> None:
    thumbnails = Thumbnails(None)
    thumbnails.keep("cat.jpg", picture(), 0)

    assert not thumbnails.waits


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2000, 1), (500, 300)])
def test_every_kind_of_image_has_one(mode: str, size: tuple[int, int]) -> None:
    small = shrunk(Image.new(mode, size))

    assert small is not None
    assert max(small.size) <= SIDE
    assert jpeg(small) is not None
