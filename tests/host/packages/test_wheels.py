"""Wheels for 32-bit ARM come from uv's index, are held against the lock, and are unpacked under plain names only."""

from __future__ import annotations

import hashlib
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tflotilla.host.packages import wheels
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from pathlib import Path

_ARM = "demo-1.0-cp311-cp311-manylinux_2_34_armv7l.whl"


class _Index:
    """A folder that uv takes wheels from, and nothing else: no network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hashes: list[str] = []

    def add(self, name: str, files: dict[str, bytes]) -> None:
        path = self.folder / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
            archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
            archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
            archive.writestr("demo-1.0.dist-info/RECORD", "")
        self.hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())

    def lock(self) -> Path:
        path = self.folder / "lock.txt"
        path.write_text("demo==1.0 \\\n" + " \\\n".join(f"    --hash=sha256:{each}" for each in self.hashes) + "\n")
        return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Index:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return _Index(folder)


def _install(index: _Index, tmp_path: Path, *, platform: str = "armv7l-manylinux_2_36") -> dict[str, bytes]:
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    wheels.install_for(target, index.lock(), platform=platform, python="3.11", name="it", cache=tmp_path / "cache")
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_the_wheel_of_the_target_is_unpacked_and_not_the_others(index: _Index, tmp_path: Path) -> None:
    index.add(_ARM, {"demo/it.so": b"arm", "demo-1.0.data/scripts/it": b"#!", "demo-1.0.data/platlib/beside.py": b"x"})
    index.add("demo-1.0-cp310-cp310-manylinux_2_34_armv7l.whl", {"demo/it.so": b"older"})
    index.add("demo-1.0-cp311-cp311-manylinux_2_34_aarch64.whl", {"demo/it.so": b"wider"})

    found = _install(index, tmp_path)

    assert {"demo/it.so": b"arm", "beside.py": b"x"} == {k: v for k, v in found.items() if "dist-info" not in k}


def test_what_was_fetched_once_needs_no_index_again(index: _Index, tmp_path: Path) -> None:
    index.add(_ARM, {"demo/it.so": b"arm"})
    _install(index, tmp_path)
    (kept,) = (tmp_path / "cache").glob("*/*.whl")
    stamp = kept.stat().st_mtime_ns

    assert _install(index, tmp_path)["demo/it.so"] == b"arm"
    assert kept.stat().st_mtime_ns == stamp


def test_a_damaged_wheel_in_the_cache_is_fetched_again(index: _Index, tmp_path: Path) -> None:
    index.add(_ARM, {"demo/it.so": b"arm"})
    _install(index, tmp_path)
    (kept,) = (tmp_path / "cache").glob("*/*.whl")
    kept.write_bytes(b"damaged")

    assert _install(index, tmp_path)["demo/it.so"] == b"arm"


def test_a_wheel_that_the_lock_does_not_name_is_not_taken(index: _Index, tmp_path: Path) -> None:
    index.add(_ARM, {"demo/it.so": b"arm"})
    index.hashes[:] = ["0" * 64]

    with pytest.raises(BoardError) as refused:
        _install(index, tmp_path)

    assert "the environment it can't be built" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list((tmp_path / "target").iterdir()) == []


def test_an_older_glibc_than_the_wheels_is_a_refusal(index: _Index, tmp_path: Path) -> None:
    index.add(_ARM, {"demo/it.so": b"arm"})

    with pytest.raises(BoardError, match=r"demo 1\.0 has no wheel"):
        _install(index, tmp_path, platform="armv7l-manylinux_2_31")


@pytest.mark.parametrize("member", ["../escaped", "/escaped", "demo/../../escaped", "demo-1.0.data/purelib/../escaped"])
def test_a_member_with_a_name_that_leads_out_refuses_the_wheel(index: _Index, tmp_path: Path, member: str) -> None:
    index.add(_ARM, {member: b"x"})

    with pytest.raises(BoardError, match="no plain file name"):
        _install(index, tmp_path)

    assert list(tmp_path.rglob("escaped")) == []


def _wheel(tags: str) -> dict[str, Any]:
    return {"url": f"https://index.invalid/x/demo-1.0-{tags}.whl", "hashes": {"sha256": tags}}


@pytest.mark.parametrize(
    ("tags", "chosen"),
    [
        (["py3-none-any"], "py3-none-any"),
        (["py2.py3-none-any"], "py2.py3-none-any"),
        (["py3-none-any", "cp311-cp311-manylinux_2_17_armv7l"], "cp311-cp311-manylinux_2_17_armv7l"),
        (
            ["cp311-cp311-manylinux_2_17_armv7l.manylinux2014_armv7l", "cp311-cp311-manylinux_2_31_armv7l"],
            "cp311-cp311-manylinux_2_31_armv7l",
        ),
        (["cp311-cp311-musllinux_1_2_armv7l", "cp310-cp310-manylinux_2_31_armv7l", "py2-none-any"], None),
    ],
)
def test_compiled_for_the_newest_glibc_that_fits_comes_before_pure(tags: list[str], chosen: str | None) -> None:
    package = {"name": "demo", "wheels": [_wheel(each) for each in tags]}

    found = wheels.choose(package, platform="armv7l-manylinux_2_36", python="3.11", hashes=frozenset(tags))

    assert chosen == (None if found is None else found["hashes"]["sha256"])
