"""Images are decoded whole or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tflotilla.shared.contract.errors import DatasetError
from tflotilla.shared.inference import images
from tflotilla.shared.inference.images import IMAGE_SUFFIXES, list_images, open_image

if TYPE_CHECKING:
    from pathlib import Path


def _encoded(image: Image.Image, kind: str) -> bytes:
    target = io.BytesIO()
    image.save(target, kind)
    return target.getvalue()


def _gradient(width: int = 64, height: int = 48) -> Image.Image:
    rows = np.add.outer(np.arange(height) * 2, np.arange(width)).astype(np.uint8)
    return Image.fromarray(np.stack([rows, rows[::-1], 255 - rows], axis=-1))


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_a_lossless_image_comes_as_it_is(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a picture"
    file.write_bytes(_encoded(_gradient(), kind))

    for source in (file, file.read_bytes()):
        assert (np.asarray(open_image(source)) == np.asarray(_gradient())).all()


def test_a_jpeg_is_scaled_down_while_decoding_only_when_asked_and_never_too_far() -> None:
    data = _encoded(_gradient(640, 480), "JPEG")

    assert open_image(data).size == (640, 480)
    assert open_image(data, draft_size=(100, 100)).size == (160, 120)
    assert open_image(data, draft_size=(700, 700)).size == (640, 480)


def test_16_bit_gray_keeps_its_high_byte_instead_of_turning_white() -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], np.uint16)
    image = open_image(_encoded(Image.fromarray(values), "PNG"))

    assert (image.mode, np.asarray(image).tolist()) == ("L", [[0, 0, 1, 0x7F, 0x80, 0xFF]])


def test_a_photo_is_not_turned_by_its_orientation_tag() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    target = io.BytesIO()
    _gradient(64, 48).save(target, "JPEG", exif=exif)

    assert open_image(target.getvalue()).size == (64, 48)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"not an image at all", "is not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not an image that can be read"),
        (b"\x89PNG\r\n\x1a\n", "is not an image that can be read"),
        (_png_of_size(9000, 9000), "has too many pixels (9000x9000)"),
        (_png_of_size(11000, 11000), "has too many pixels"),
        (_png_of_size(60000, 60000), "has too many pixels"),
        (_png_of_size(100, 100), "is damaged"),
    ],
    ids=["empty", "text", "postscript", "only a head", "81 MP", "121 MP", "3600 MP", "short data"],
)
def test_what_can_not_be_decoded_whole_is_refused_in_one_line(data: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.png"
    file.write_bytes(data)

    with pytest.raises(DatasetError) as caught:
        open_image(file)

    assert str(caught.value).startswith(f"{file} {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_truncated_image_is_refused_at_every_length(kind: str) -> None:
    rng = np.random.default_rng(5)
    data = _encoded(Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)), kind)

    for length in range(1, len(data) * 9 // 10, max(1, len(data) // 40)):
        with pytest.raises(DatasetError):
            open_image(data[:length])


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent\.png can't be read: No such file"):
        open_image(tmp_path / "absent.png")


def test_images_are_found_in_sorted_order_at_every_depth(tmp_path: Path) -> None:
    wanted = ["a.PNG", "b/$(touch x).jpg", "b/c/2.jpeg", "b/c/10.bmp", 'z\'s "name".gif']
    for name in [*wanted, "notes.txt", ".hidden.png", ".cache/x.png", "b/._c.jpg", "png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)] == sorted(wanted)


def test_a_folder_that_contains_itself_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "again").symlink_to(tmp_path)

    assert list_images(tmp_path) == (tmp_path / "1.png",)


def test_a_folder_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").touch()

    with pytest.raises(DatasetError, match=r"holds no image \(looked for \.bmp"):
        list_images(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "1.png"
    file.touch()

    with pytest.raises(DatasetError, match="is not a folder"):
        list_images(file)


def test_every_suffix_that_is_listed_belongs_to_a_format_that_is_read() -> None:
    Image.init()

    assert {Image.EXTENSION[suffix] for suffix in IMAGE_SUFFIXES} <= set(images._FORMATS)
