"""The power goes, or the disk is full, at every single operation of a deployment: one whole bundle serves after it.

The disk is simulated (`simulated_disk`); `test_power_cut` does the same to a real ext4.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.device.bundles_made import MadeBundle, Signer, install, make_bundle, make_signer, receive, trust
from tests.device.fake_serving import CRASHING, FakeServing
from tests.device.simulated_disk import WORLDS, FullDisk, PowerCut, SimulatedDisk, World
from tflotilla.device.disk import Disk, RealDisk
from tflotilla.device.home import Home
from tflotilla.device.installer import Installer
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Bundles = tuple[MadeBundle, MadeBundle, MadeBundle]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    signer: Signer = make_signer(tmp_path_factory.mktemp("keys"))
    first, second, third = (
        make_bundle(tmp_path_factory.mktemp("made"), signer, version=f"{n}.0.0", release=n, model=b"model %d" % n)
        for n in (1, 2, 3)
    )
    return first, second, third


class _Story:
    """A board that has served the first bundle, serves the second, and has received the third."""

    def __init__(self, folder: Path, bundles: Bundles, *, healthy: bool) -> None:
        self.home = Home(folder)
        self.oldest, self.old, self.new = bundles
        self._healthy = healthy
        trust(self.home)
        install(self.home, bundles[0])
        self.home.previous.symlink_to(self.home.current.readlink())
        install(self.home, bundles[1])
        receive(self.home, bundles[2])

    def installer(self, home: Home, disk: Disk, told: list[DeploymentStatus], serving: FakeServing) -> Installer:
        serving.observation = serving.observation if self._healthy else CRASHING
        # Signatures are not what a power cut breaks, and cost a process each: they have tests of their own.
        return Installer(
            Store(home, disk),
            serving,
            InferenceConfig(),
            on_status=told.append,
            check=lambda bundle, store: store.manifest(bundle),
        )

    async def deploy(
        self, disk: Disk, on_status: Callable[[DeploymentStatus], None] = lambda _status: None
    ) -> DeploymentStatus:
        installer = self.installer(self.home, disk, [], FakeServing())
        return await installer.deploy("d1", self.new.digest, on_status)

    def links(self, home: Home) -> tuple[str | None, str | None]:
        """Return what `current` and `previous` name."""
        return Store(home).current(), Store(home).previous()

    @property
    def before(self) -> tuple[str, str]:
        """The links when nothing was deployed, or everything undone."""
        return self.old.digest, self.oldest.digest

    @property
    def after(self) -> tuple[str, str]:
        """The links when the new bundle serves."""
        return self.new.digest, self.old.digest

    async def restart(self, home: Home) -> tuple[str, list[DeploymentStatus]]:
        """Wake up: return the digest that serves first, and what is told."""
        told: list[DeploymentStatus] = []
        serving = FakeServing()
        installer = self.installer(home, RealDisk(), told, serving)
        await installer.start()
        await installer.settle()
        first = next(call[1] for call in serving.calls if call[0] == "serve")
        assert isinstance(first, str)
        assert serving.serving == Store(home).current()
        return first, told


def _operations(folder: Path, bundles: Bundles, *, healthy: bool) -> int:
    story = _Story(folder, bundles, healthy=healthy)
    disk = SimulatedDisk(story.home.path)
    asyncio.run(story.deploy(disk))
    return len(disk.log)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("healthy", [True, False], ids=["good", "bad"])
def test_after_a_power_cut_the_old_or_the_new_bundle_serves_whole(
    tmp_path: Path, bundles: Bundles, world: World, *, healthy: bool
) -> None:
    count = _operations(tmp_path / "counted", bundles, healthy=healthy)
    assert count > 20
    first_served = set()
    for cut_at in range(count):
        story = _Story(tmp_path / f"{cut_at}", bundles, healthy=healthy)
        disk = SimulatedDisk(story.home.path, cut_at)
        with pytest.raises(PowerCut):
            asyncio.run(story.deploy(disk))
        woken = Home(tmp_path / f"{cut_at}-woken")
        disk.wake_up(woken.path, world)
        woken.make()

        first, told = asyncio.run(story.restart(woken))

        where = disk.log[-1] if disk.log else "the beginning"
        first_served.add(first)
        assert first in (story.old.digest, story.new.digest), where
        Store(woken).verify(first)
        if told:
            assert told[-1].state.final, where
            expected = DeploymentState.SUCCEEDED if healthy else DeploymentState.ROLLED_BACK
            assert told[-1].state is expected, where
            assert story.links(woken) == (story.after if healthy else story.before), where
        else:
            # Before the first note or after the last: nothing was begun, or all was done.
            assert story.links(woken) in (story.before, story.after), where
        assert not woken.journal.exists(), where
    # The cuts did reach both sides of the switch.
    assert first_served == {story.old.digest, story.new.digest}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("healthy", [True, False], ids=["good", "bad"])
def test_what_was_told_survives_a_power_cut(tmp_path: Path, bundles: Bundles, world: World, *, healthy: bool) -> None:
    story = _Story(tmp_path / "home", bundles, healthy=healthy)
    disk = SimulatedDisk(story.home.path)
    survived: dict[str, tuple[str | None, str | None]] = {}

    def look(status: DeploymentStatus) -> None:
        woken = Home(tmp_path / status.state.value)
        disk.wake_up(woken.path, world)
        survived[status.state.value] = story.links(woken)

    asyncio.run(story.deploy(disk, look))

    last = {"succeeded": story.after} if healthy else {"rolled_back": story.before}
    untouched = dict.fromkeys(("verifying", "probing", "switching"), story.before)
    assert survived == {**untouched, "confirming": story.after, **last}


@pytest.mark.parametrize("healthy", [True, False], ids=["good", "bad"])
def test_on_a_full_disk_nothing_is_half_done(tmp_path: Path, bundles: Bundles, *, healthy: bool) -> None:
    seen = set()
    for full_from in range(30):
        story = _Story(tmp_path / f"{full_from}", bundles, healthy=healthy)
        disk = FullDisk(full_from)

        last = asyncio.run(story.deploy(disk))

        store = Store(story.home)
        current = store.current()
        assert current in (story.old.digest, story.new.digest)
        store.verify(current)
        seen.add(last.state)
        if last.state is DeploymentState.FAILED:
            assert last.error == "BoardError"
            assert "not enough space" in last.detail
            assert "MiB are free" in last.detail
        # With room again, the next start leaves a board at rest.
        asyncio.run(story.restart(story.home))
        assert not story.home.journal.exists()
        assert not [path for path in story.home.path.rglob("*.new") if path.parent != story.home.path]
    assert DeploymentState.FAILED in seen
    assert (DeploymentState.SUCCEEDED if healthy else DeploymentState.ROLLED_BACK) in seen


def test_a_transfer_that_fills_the_disk_leaves_nothing_behind(tmp_path: Path, bundles: Bundles) -> None:
    home = Home(tmp_path)
    home.make()
    data = bundles[0].files["model.tflite"]
    incoming = Store(home, FullDisk(0)).receive(bundles[0].blob("model.tflite"), len(data), 0)

    with pytest.raises(BoardError, match="not enough space on the board"):
        incoming.write(_compressed(data))

    assert list(home.incoming.iterdir()) == []


class _SmallDisk(RealDisk):
    def free_bytes(self, path: Path) -> int:
        del path
        return 5 << 20


def test_space_is_asked_for_before_it_is_written(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()

    with pytest.raises(BoardError, match=r"9\.0 MiB and a reserve of 4 MiB are needed, 5\.0 MiB are free under"):
        Store(home, _SmallDisk()).receive("0" * 64, 9 << 20, 0)

    assert list(home.incoming.iterdir()) == []


def _compressed(data: bytes) -> bytes:
    return zlib.compress(data)
