"""Real power cuts: a deployment on a real ext4, whose device is shut down under it without a flush.

`kill -9` does not test durability, EXT4_IOC_SHUTDOWN does. It needs root and loop mounts and takes a fifth of a second
per cut, so it runs only when it is asked for: `TFLOTILLA_POWER_CUTS=45 make test ARGS=tests/device/test_power_cut.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.device.bundles_made import MadeBundle, install, make_bundle, make_signer, receive, trust
from tests.device.fake_serving import FakeServing
from tflotilla.device.disk import RealDisk
from tflotilla.device.home import Home
from tflotilla.device.installer import Installer
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.shared.contract.deployment import DeploymentStatus

CUTS = int(os.environ.get("TFLOTILLA_POWER_CUTS", "0"))
_EXT4_IOC_SHUTDOWN = 0x8004587D
#: Neither data nor journal are flushed: what a pulled plug does.
_NO_LOG_FLUSH = 2
_IMAGE_BYTES = 32 << 20

pytestmark = [
    pytest.mark.skipif(CUTS == 0, reason="slow and for root: set TFLOTILLA_POWER_CUTS to the number of cuts"),
    pytest.mark.timeout(60 + 10 * CUTS),
]


class _PowerCut(BaseException):
    pass


class _CutDisk(RealDisk):
    """The real disk; after operation number `cut_at` its power goes."""

    def __init__(self, root: Path, cut_at: int | None) -> None:
        self._root = root
        self._cut_at = cut_at
        self.operations = 0

    def create(self, path: Path, data: bytes) -> None:
        super().create(path, data)
        self._count()

    def sync_file(self, path: Path) -> None:
        super().sync_file(path)
        self._count()

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._count()

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._count()

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._count()

    def symlink(self, text: str, path: Path) -> None:
        super().symlink(text, path)
        self._count()

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._count()

    def _count(self) -> None:
        if self.operations == self._cut_at:
            pull_the_plug(self._root)
            raise _PowerCut
        self.operations += 1


def pull_the_plug(mounted: Path) -> None:
    """Shut the file system down without writing anything back."""
    handle = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(handle)


class _Device:
    """An ext4 in a file, mounted through a loop device."""

    def __init__(self, folder: Path) -> None:
        self._image, self.mounted = folder / "image", folder / "mounted"
        self.mounted.mkdir()
        with self._image.open("wb") as stream:
            stream.truncate(_IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self.mount()

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", "loop", str(self._image), str(self.mounted)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"no loop mounts here: {done.stderr.strip()}")

    def umount(self) -> None:
        subprocess.run(["umount", str(self.mounted)], check=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[_Device]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    made = _Device(tmp_path)
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.umount()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeBundle, MadeBundle]:
    signer = make_signer(tmp_path_factory.mktemp("keys"))
    old, new = (
        make_bundle(tmp_path_factory.mktemp("made"), signer, version=f"{n}.0.0", release=n, model=os.urandom(200_000))
        for n in (1, 2)
    )
    return old, new


def _board(home: Home, old: MadeBundle, new: MadeBundle) -> None:
    trust(home)
    install(home, old)
    receive(home, new)
    os.sync()


def _installer(home: Home, disk: RealDisk, told: list[DeploymentStatus]) -> Installer:
    return Installer(
        Store(home, disk),
        FakeServing(),
        InferenceConfig(),
        on_status=told.append,
        check=lambda bundle, store: store.manifest(bundle),
    )


async def _deploy(home: Home, disk: RealDisk, new: MadeBundle, told: list[DeploymentStatus]) -> None:
    await _installer(home, disk, told).deploy("d1", new.digest, lambda _status: None)


async def _restart(home: Home) -> None:
    installer = _installer(home, RealDisk(), [])
    await installer.start()
    await installer.settle()


def test_after_a_power_cut_one_whole_bundle_serves_and_what_was_told_holds(
    device: _Device, bundles: tuple[MadeBundle, MadeBundle], tmp_path: Path
) -> None:
    old, new = bundles
    rehearsal = Home(tmp_path / "rehearsal")
    _board(rehearsal, old, new)
    counting = _CutDisk(rehearsal.path, None)
    asyncio.run(_deploy(rehearsal, counting, new, []))
    seen = set()
    for number in range(CUTS):
        cut_at = number * counting.operations // CUTS
        home = Home(device.mounted / f"{number}")
        _board(home, old, new)
        told: list[DeploymentStatus] = []

        with pytest.raises(_PowerCut):
            asyncio.run(_deploy(home, _CutDisk(home.path, cut_at), new, told))
        device.umount()
        device.mount()

        store = Store(home)
        woken = store.current()
        assert woken in (old.digest, new.digest), cut_at
        store.verify(woken)
        if told and told[-1].state.value in ("confirming", "succeeded"):
            assert woken == new.digest, cut_at
        seen.add(woken)
        asyncio.run(_restart(home))
        after = store.current()
        assert after is not None
        store.verify(after)
        assert after == new.digest or not told, cut_at
        assert not home.journal.exists(), cut_at
        subprocess.run(["rm", "-rf", str(home.path)], check=True)
    if CUTS >= counting.operations:
        assert seen == {old.digest, new.digest}


def test_an_unsynced_switch_is_lost_so_that_this_suite_can_fail(device: _Device) -> None:
    """The cut is real: what nobody synced does not survive it."""
    os.sync()
    (device.mounted / "link").symlink_to("somewhere")

    pull_the_plug(device.mounted)
    device.umount()
    device.mount()

    assert not (device.mounted / "link").is_symlink()
