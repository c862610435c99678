"""Bundles that were edited, cut off, signed by nobody or by a stranger: refused before a board hears of them."""

from __future__ import annotations

import io
import os
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests import models_made, sshd
from tests.end_to_end.commands import Person
from tests.end_to_end.mistakes import Clumsy, clumsy, complaint
from tflotilla.host.bundles import archive, build
from tflotilla.shared.contract.manifest import GOLDENS, LABELS, MANIFEST, MODEL, SIGNATURE, Manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["clumsy"]
#: A board that nobody reaches: whoever tries is told so with another exit code.
_FLEET = """\
name = "home"
[signing]
key = "key"
[boards.pi-1]
host = "127.0.0.1"
port = 9
"""


def _create(somebody: Clumsy, name: str, *options: str) -> None:
    done = somebody.types(
        *("bundle", "create", "m.tflite", "--name", "digits", "--version", "1.0.0", "--preprocess", "unit"),
        *("--labels", "labels.txt", "--golden-count", "2", "-o", name, *options),
    )
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Make bundles once: a good one, one of nobody, one of a stranger, and the keys."""
    folder = tmp_path_factory.mktemp("made")
    somebody = Clumsy(folder=folder)
    (folder / "m.tflite").write_bytes(models_made.read("tiny_classifier"))
    (folder / "labels.txt").write_bytes(models_made.LABELS_TXT)
    for key in ("key", "stranger"):
        sshd.generate_key(folder / key)
    _create(somebody, "good.tflb", "--key", "key")
    _create(somebody, "unsigned.tflb", "--unsigned")
    _create(somebody, "strange.tflb", "--key", "stranger")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def somebody(clumsy: Clumsy, made: dict[str, bytes]) -> Clumsy:
    """Give somebody with these bundles and a fleet of one board that is off."""
    for name, data in made.items():
        (clumsy.folder / name).write_bytes(data)
    for key in ("key", "stranger"):
        (clumsy.folder / key).chmod(0o600)
    (clumsy.folder / "fleet.toml").write_text(_FLEET)
    return clumsy


def _refused(somebody: Clumsy, bundle: str, *, codes: tuple[int, ...]) -> str:
    """Every command that believes a bundle says the same of a bad one; return what `deploy` says."""
    said = ""
    for command in (("bundle", "verify", bundle), ("deploy", bundle, "all")):
        ran = somebody.types(*command)
        assert ran.code in codes, ran.err
        said = complaint(ran, ran.code)
        assert bundle in said
    return said


@pytest.mark.parametrize("member", [MODEL, LABELS, GOLDENS, SIGNATURE, MANIFEST])
def test_an_edited_member_is_named(somebody: Clumsy, member: str) -> None:
    members = archive.members(somebody.folder / "good.tflb")
    data = bytearray(members[member])
    place = data.index(b'"release":1') + 10 if member == MANIFEST else len(data) // 2
    data[place] ^= 3
    archive.write(somebody.folder / "edited.tflb", members | {member: bytes(data)})

    said = _refused(somebody, "edited.tflb", codes=(8,))

    assert {MANIFEST: "signed bytes were changed", SIGNATURE: "signature"}.get(member, member) in said


@pytest.mark.parametrize("member", [MODEL, LABELS, GOLDENS, MANIFEST])
def test_a_missing_member_is_named(somebody: Clumsy, member: str) -> None:
    members = archive.members(somebody.folder / "good.tflb")
    del members[member]
    folder = somebody.folder / "part"
    folder.mkdir()
    for name, data in members.items():
        (folder / name).write_bytes(data)

    assert member in _refused(somebody, "part", codes=(3, 8))


def test_an_additional_member_is_refused(somebody: Clumsy) -> None:
    data = io.BytesIO((somebody.folder / "good.tflb").read_bytes())
    with zipfile.ZipFile(data, "a") as bundle:
        bundle.writestr("../../etc/cron.d/evil", b"* * * * * root reboot")
    (somebody.folder / "more.tflb").write_bytes(data.getvalue())

    _refused(somebody, "more.tflb", codes=(3,))


def test_a_release_number_can_not_be_raised(somebody: Clumsy) -> None:
    """Whoever signs again with another key is a stranger."""
    members = archive.members(somebody.folder / "good.tflb")
    manifest = Manifest.from_bytes(members[MANIFEST])
    files = {name: members[name] for name in manifest.files}
    sealed = build.seal(manifest, files, key=somebody.folder / "stranger")
    archive.write(somebody.folder / "resigned.tflb", sealed)

    assert "does not allow" in _refused(somebody, "resigned.tflb", codes=(8,))


def test_a_bundle_of_nobody_is_refused(somebody: Clumsy) -> None:
    assert "signed" in _refused(somebody, "unsigned.tflb", codes=(8,))


def test_a_bundle_of_a_stranger_is_refused(somebody: Clumsy) -> None:
    assert "does not allow" in _refused(somebody, "strange.tflb", codes=(8,))


@pytest.mark.parametrize("length", [0, 1, 30, 500, 5000, -1, -22])
def test_a_bundle_that_was_cut_off_is_refused(somebody: Clumsy, made: dict[str, bytes], length: int) -> None:
    (somebody.folder / "cut.tflb").write_bytes(made["good.tflb"][:length])

    _refused(somebody, "cut.tflb", codes=(3,))


@pytest.mark.parametrize("other", ["m.tflite", "key", "fleet.toml", ".", "missing.tflb", "labels.txt"])
def test_what_is_no_bundle_is_named(somebody: Clumsy, other: str) -> None:
    for command in (("bundle", "show", other), ("bundle", "verify", other), ("check", other, "all")):
        assert other in somebody.errs(*command, code=3)


def test_flipped_bits_of_a_whole_bundle_are_refused_by_every_reader(somebody: Clumsy, made: dict[str, bytes]) -> None:
    """Every 97th byte, one at a time: names, sizes, checksums, data."""
    good = made["good.tflb"]
    for place in range(0, len(good), 97):
        data = bytearray(good)
        data[place] ^= 0x10
        (somebody.folder / "flipped.tflb").write_bytes(data)
        ran = somebody.types("bundle", "verify", "flipped.tflb")
        # Some bytes of a zip mean nothing: times, attributes of the host.
        if ran.code:
            complaint(ran, ran.code)
            assert ran.code in (3, 8)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--key", "missing"), 3, "no such key"),
        (("--key", "labels.txt"), 3, "not an SSH private key"),
        (("--key", "."), 3, "no such key"),
        (("--key", "key", "--unsigned"), 2, "contradict"),
        (("--key", "key", "--health", "max_p99_ms=-1"), 2, "must be above 0"),
        (("--key", "key", "--health", "max_error_rate=7"), 2, "0..1"),
        (("--key", "key", "--health", "speed=1"), 2, "unknown key 'speed'"),
        (("--key", "key", "--release", "0"), 2, "at least 1"),
        (("--key", "key", "--release", "99999999999999999999"), 2, "at most"),
        (("--key", "key", "--evaluation", "labels.txt"), 3, "labels.txt"),
        (("--key", "key", "--postprocess", "detection"), 3, "detection"),
        (("--key", "key", "-o", "labels.txt"), 3, "labels.txt"),
        (("--key", "key", "-o", "."), 3, "no bundle"),
        (("--key", "key", "-o", "nowhere/x.tflb"), 3, "no such folder"),
    ],
)
def test_what_can_not_be_signed_is_said_before_anything_is_written(
    somebody: Clumsy, options: tuple[str, ...], code: int, words: str
) -> None:
    target = () if "-o" in options else ("-o", "new.tflb")
    said = somebody.errs(
        *("bundle", "create", "m.tflite", "--version", "2", "--preprocess", "unit", *target, *options),
        code=code,
    )

    assert words in said


@pytest.mark.parametrize("name", ["missing", ".", "m.tflite"])
def test_signers_that_can_not_be_read_are_named(somebody: Clumsy, name: str) -> None:
    ran = somebody.types("bundle", "verify", "good.tflb", "--allowed-signers", name)

    assert ran.code in (3, 8)
    assert name in complaint(ran, ran.code)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_full_disk_leaves_no_half_bundle(somebody: Clumsy) -> None:
    disk = somebody.folder.parent / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        for name in ("x.tflb", "x"):
            ran = somebody.types(
                *("bundle", "create", "m.tflite", "--version", "1", "--preprocess", "unit"),
                *("--key", "key", "-o", disk / name),
            )
            assert "No space left" in complaint(ran, 3)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_by_the_command_line_too(tmp_path: Path, made: dict[str, bytes]) -> None:
    """The same in a process of its own."""
    (tmp_path / "unsigned.tflb").write_bytes(made["unsigned.tflb"])
    person = Person(folder=tmp_path, home=tmp_path)

    ran = person.types("bundle", "verify", "unsigned.tflb", "--json", code=8)

    assert "unsigned.tflb" in complaint(ran, 8)
    assert ran.out == ""
