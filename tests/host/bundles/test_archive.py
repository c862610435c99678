"""Archives: what goes in comes out, and nothing hostile gets further than its name."""

from __future__ import annotations

import os
import random
import stat
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.host.bundles import making
from tflotilla.host.bundles import archive
from tflotilla.host.bundles.archive import Bundle
from tflotilla.shared.contract.errors import ContractError, InputError, VerificationError

if TYPE_CHECKING:
    from pathlib import Path


def _zip(path: Path, members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["tiny.tflb", "tiny"])
def test_a_bundle_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    members = making.members(tmp_path)
    written = archive.write(tmp_path / name, members)

    bundle = Bundle.open(written)

    bundle.verify_files()
    assert members == archive.members(written)
    assert "tiny-1.0.0" == bundle.manifest.title
    assert members["model.tflite"] == bundle.read("model.tflite")
    assert bundle.signature is None


def test_equal_members_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    members = making.members(tmp_path)
    shuffled = dict(random.Random(1).sample(list(members.items()), len(members)))  # noqa: S311 - an order

    one = archive.write(tmp_path / "one.tflb", members)
    other = archive.write(tmp_path / "other.tflb", shuffled)

    assert one.read_bytes() == other.read_bytes()


def test_folder_and_file_have_the_same_digest(tmp_path: Path) -> None:
    members = making.members(tmp_path)

    folder = Bundle.open(archive.write(tmp_path / "tiny", members))
    file = Bundle.open(archive.write(tmp_path / "tiny.tflb", members))

    assert folder.digest == file.digest


@pytest.mark.parametrize("name", ["tiny.tflb", "tiny"])
def test_files_can_be_read_from_the_middle(tmp_path: Path, name: str) -> None:
    """A transfer goes on where it broke."""
    members = making.members(tmp_path)
    bundle = Bundle.open(archive.write(tmp_path / name, members))

    with bundle.open_file("model.tflite") as stream:
        stream.seek(100)
        middle = stream.read(50)
        stream.seek(-3, os.SEEK_END)
        end = stream.read()

    assert members["model.tflite"][100:150] == middle
    assert members["model.tflite"][-3:] == end


@pytest.mark.parametrize("name", ["tiny.tflb", "tiny"])
def test_an_older_bundle_is_replaced_and_nothing_is_left_behind(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    archive.write(home / name, making.members(tmp_path, release=1))
    archive.write(home / name, making.members(tmp_path, release=2))

    assert 2 == Bundle.open(home / name).manifest.release
    assert [name] == [entry.name for entry in home.iterdir()]


def test_a_folder_that_is_no_bundle_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")

    with pytest.raises(InputError, match="is not a bundle"):
        archive.write(tmp_path / "photos", making.members(tmp_path))

    assert b"cat" == (tmp_path / "photos" / "cat.jpg").read_bytes()


@pytest.mark.parametrize("name", ["tiny.tflb", "tiny"])
def test_a_model_edited_in_place_is_found_by_its_hash(tmp_path: Path, name: str) -> None:
    members = making.members(tmp_path)
    edited = bytearray(members["model.tflite"])
    edited[-1] ^= 1
    bundle = Bundle.open(archive.write(tmp_path / name, members | {"model.tflite": bytes(edited)}))

    with pytest.raises(VerificationError, match=r"model\.tflite .*edited"):
        bundle.verify_files()
    with pytest.raises(VerificationError, match="edited"):
        bundle.read("model.tflite")


def test_bytes_flipped_inside_the_zip_are_found_too(tmp_path: Path) -> None:
    """Without zip's own checksum being mended, as a bad disk does it."""
    path = archive.write(tmp_path / "tiny.tflb", making.members(tmp_path))
    data = bytearray(path.read_bytes())
    at = data.index(b"TFL3") + 40
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))

    with pytest.raises(VerificationError, match="edited"):
        Bundle.open(path).verify_files()


def test_a_model_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    members = making.members(tmp_path)
    path = archive.write(tmp_path / "tiny.tflb", members | {"model.tflite": b"TFL"})

    with pytest.raises(VerificationError, match="3 bytes and the manifest says"):
        Bundle.open(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    members = making.members(tmp_path)
    del members["labels.txt"]

    with pytest.raises(ContractError, match=r"labels\.txt is missing"):
        Bundle.open(archive.write(tmp_path / "tiny.tflb", members))


def test_a_file_nobody_signed_for_is_refused(tmp_path: Path) -> None:
    path = archive.write(tmp_path / "tiny.tflb", making.members(tmp_path) | {"install.sh": b"rm"})

    with pytest.raises(ContractError, match=r"install\.sh"):
        Bundle.open(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", ".hidden", "with space", "$(reboot)", "a\nb", ""])
def test_names_that_are_not_plain_end_the_reading(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "bad.tflb", making.members(tmp_path) | {name or "x/": b""})

    with pytest.raises(ContractError, match="not a plain file name"):
        Bundle.open(path)
    assert not (tmp_path.parent / "evil").exists()


def test_compressed_members_are_refused_so_nothing_can_explode(tmp_path: Path) -> None:
    members = making.members(tmp_path) | {"labels.txt": bytes(50 << 20)}
    path = _zip(tmp_path / "bomb.tflb", members, compression=zipfile.ZIP_DEFLATED)

    assert path.stat().st_size < 1 << 20
    with pytest.raises(ContractError, match="compressed"):
        Bundle.open(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "twice.tflb", making.members(tmp_path))
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("model.tflite", b"another")

    with pytest.raises(ContractError, match=r"model\.tflite twice"):
        Bundle.open(path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "link.tflb", {})
    with zipfile.ZipFile(path, "w") as target:
        info = zipfile.ZipInfo("model.tflite")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(info, "/etc/passwd")

    with pytest.raises(ContractError, match="links"):
        Bundle.open(path)


def test_links_and_folders_in_a_folder_are_refused(tmp_path: Path) -> None:
    folder = archive.write(tmp_path / "tiny", making.members(tmp_path))
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to("/etc/passwd")

    with pytest.raises(ContractError, match=r"labels\.txt is not a plain file"):
        Bundle.open(folder)


def test_a_header_that_lies_about_the_size_gives_no_foreign_bytes(tmp_path: Path) -> None:
    """The sizes of the zip's directory say 4 GiB; only what is there can be read."""
    path = archive.write(tmp_path / "tiny.tflb", making.members(tmp_path))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.tflite"))
    struct.pack_into("<II", data, entry + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(bytes(data))

    with pytest.raises((VerificationError, ContractError)):
        Bundle.open(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_bundle_is_one_line(tmp_path: Path, share: float) -> None:
    path = archive.write(tmp_path / "tiny.tflb", making.members(tmp_path))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(ContractError, match="not a complete bundle") as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)


def test_mutated_bundles_never_end_in_anything_but_our_errors(tmp_path: Path) -> None:
    good = archive.write(tmp_path / "tiny.tflb", making.members(tmp_path)).read_bytes()
    chance = random.Random(7)  # noqa: S311 - reproducible damage
    path = tmp_path / "mutant.tflb"
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(bytes(data))
        try:
            Bundle.open(path).verify_files()
        except (ContractError, VerificationError, InputError):
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", ContractError, "not a bundle"),
        (b"not a zip", ContractError, "not a bundle"),
        (None, InputError, "no such bundle"),
    ],
)
def test_what_is_no_bundle_is_said_in_one_line(
    tmp_path: Path, content: bytes | None, error: type[Exception], words: str
) -> None:
    path = tmp_path / "x.tflb"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(error, match=words):
        Bundle.open(path)


def test_a_zip_of_something_else_is_said_to_be_no_bundle(tmp_path: Path) -> None:
    path = _zip(tmp_path / "other.zip", {"readme.txt": b"hello"})

    with pytest.raises(ContractError, match=r"no manifest\.json"):
        Bundle.open(path)


def test_a_manifest_that_is_no_json_names_the_bundle(tmp_path: Path) -> None:
    path = _zip(tmp_path / "bad.tflb", {"manifest.json": b"{"})

    with pytest.raises(ContractError, match=r"bad\.tflb: manifest\.json"):
        Bundle.open(path)


def test_an_endless_manifest_is_not_read(tmp_path: Path) -> None:
    path = _zip(tmp_path / "big.tflb", {"manifest.json": bytes(archive.MAX_MANIFEST_BYTES + 1)})

    with pytest.raises(ContractError, match="larger than"):
        Bundle.open(path)


def test_an_error_of_the_reader_passes_through_open_file(tmp_path: Path) -> None:
    bundle = making.bundle(tmp_path)

    def fail() -> None:
        with bundle.open_file("model.tflite"):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be written"):
        archive.write(tmp_path / "missing" / "tiny.tflb", making.members(tmp_path))
