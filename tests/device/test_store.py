"""The store: what is kept, what is collected, what two sessions at once may do (power and room: `test_power_loss`)."""

from __future__ import annotations

import os
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.device.bundles_made import MadeBundle, install, make_bundle, make_signer, receive
from tflotilla.device.choice import Choice
from tflotilla.device.home import Home
from tflotilla.device.store import ABANDONED_AFTER_S, RESERVE_BYTES, Store
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, ConflictError, ContractError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_800_000_000.0
DATA = os.urandom(5000)
SHA = digest.of_bytes(DATA)
LITERT = RuntimeOffer(name="ai-edge-litert", version="2.3.0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeBundle, MadeBundle]:
    signer = make_signer(tmp_path_factory.mktemp("keys"))
    one, two = (
        make_bundle(tmp_path_factory.mktemp("made"), signer, version=f"{n}", release=n, model=b"model %d" % n)
        for n in (1, 2)
    )
    return one, two


@pytest.fixture
def store(tmp_path: Path) -> Store:
    home = Home(tmp_path / "home")
    home.make()
    return Store(home, clock=lambda: NOW)


def _receive(store: Store, data: bytes, *, sha256: str = SHA) -> None:
    incoming = store.receive(sha256, len(DATA), 0)
    incoming.write(zlib.compress(data))
    incoming.finish()


def _age(path: Path, seconds: float) -> None:
    os.utime(path, (NOW - seconds, NOW - seconds))


def test_a_blob_is_visible_once_it_is_whole(store: Store) -> None:
    incoming = store.receive(SHA, len(DATA), 0)
    incoming.write(zlib.compress(DATA))
    assert not store.has_blob(SHA, len(DATA))

    incoming.finish()

    assert store.has_blob(SHA, len(DATA))
    assert store.blob(SHA).read_bytes() == DATA
    assert store.blob(SHA).stat().st_mode & 0o777 == 0o400
    assert list(store.home.incoming.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 1])
def test_blobs_of_every_size_arrive(store: Store, size: int) -> None:
    """Highly compressible on purpose: one piece of the stream inflates to many pieces of the blob."""
    data = bytes(size)
    incoming = store.receive(digest.of_bytes(data), size, 0)
    incoming.write(zlib.compress(data))
    incoming.finish()

    assert store.blob(digest.of_bytes(data)).stat().st_size == size


def test_other_bytes_of_the_right_length_are_thrown_away(store: Store) -> None:
    with pytest.raises(VerificationError, match="arrived damaged and was thrown away"):
        _receive(store, DATA[::-1])

    assert not store.has_blob(SHA, len(DATA))
    assert list(store.home.incoming.iterdir()) == []


def test_a_stream_that_ends_early_is_kept_and_gone_on_with(store: Store) -> None:
    incoming = store.receive(SHA, len(DATA), 0)
    incoming.write(zlib.compress(DATA[:2000]))
    with pytest.raises(ContractError, match="3000 bytes are missing"):
        incoming.finish()

    rest = store.receive(SHA, len(DATA), store.partial_bytes(SHA, len(DATA)))
    rest.write(zlib.compress(DATA[2000:]))
    rest.finish()

    assert store.has_blob(SHA, len(DATA))


def test_the_younger_of_two_sessions_wins(store: Store) -> None:
    """The older one's line was cut, and its process doesn't know it yet."""
    older = store.receive(SHA, len(DATA), 0)
    older.write(zlib.compress(DATA[:1000]))
    younger = store.receive(SHA, len(DATA), 1000)
    younger.write(zlib.compress(DATA[1000:2000]))
    fresh = store.receive(SHA, len(DATA), 2000)

    stream = zlib.compressobj()
    with pytest.raises(ConflictError, match="another session"):
        older._write(DATA[1000:1100], 1000)
    fresh.write(stream.compress(DATA[2000:]) + stream.flush())
    fresh.finish()

    assert store.has_blob(SHA, len(DATA))


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63])
def test_what_is_no_digest_names_nothing(store: Store, name: str) -> None:
    with pytest.raises(ContractError):
        store.receive(name, 1, 0)
    with pytest.raises(ValueError, match="not a SHA-256 digest"):
        store.has_bundle(name)


class TestCollecting:
    def test_what_is_to_be_kept_is_kept_and_the_rest_goes(
        self, store: Store, made: tuple[MadeBundle, MadeBundle]
    ) -> None:
        one, two = made
        install(store.home, one)
        install(store.home, two)

        store.collect({two.digest})

        assert [folder.name for folder in store.home.bundles.iterdir()] == [two.digest]
        assert not store.has_blob(one.blob("model.tflite"), 7)
        assert store.missing(two.manifest) == ()
        store.verify(two.digest)

    def test_a_bundle_on_its_way_keeps_what_has_arrived(
        self, store: Store, made: tuple[MadeBundle, MadeBundle]
    ) -> None:
        receive(store.home, made[0])
        (store.home.incoming / f"{SHA}.part").write_bytes(b"half")
        for entry in store.home.incoming.iterdir():
            _age(entry, ABANDONED_AFTER_S - 1)

        store.collect(set())

        assert store.missing(made[0].manifest) == ()
        assert store.partial_bytes(SHA, 10) == 4

    def test_a_bundle_that_was_abandoned_goes_with_its_blobs(
        self, store: Store, made: tuple[MadeBundle, MadeBundle]
    ) -> None:
        receive(store.home, made[0])
        (store.home.incoming / f"{SHA}.part").write_bytes(b"half")
        for entry in store.home.incoming.iterdir():
            _age(entry, ABANDONED_AFTER_S + 1)

        store.collect(set())

        assert list(store.home.incoming.iterdir()) == []
        assert list(store.home.store.glob("??/*")) == []

    def test_a_clock_that_went_back_loses_nothing(self, store: Store, made: tuple[MadeBundle, MadeBundle]) -> None:
        receive(store.home, made[0])
        _age(store.home.incoming / made[0].digest, -1e9)

        store.collect(set())

        assert store.missing(made[0].manifest) == ()


class TestChoices:
    def test_a_choice_is_remembered_for_bundles_that_are_here(
        self, store: Store, made: tuple[MadeBundle, MadeBundle]
    ) -> None:
        one, two = made
        install(store.home, one)
        store.choose(one.digest, Choice(runtime=LITERT))
        store.choose("0" * 64, Choice(runtime=LITERT))
        store.choose(two.digest, Choice(runtime=LITERT))

        assert store.choice(one.digest) == Choice(runtime=LITERT)
        assert store.choice("0" * 64) is None

    def test_what_tuning_found_is_remembered_and_forgotten_again(
        self, store: Store, made: tuple[MadeBundle, MadeBundle]
    ) -> None:
        bundle = made[0].digest
        install(store.home, made[0])
        delegate = DelegateConfig(library="libthing.so", options={"cores": "2"})
        inference = InferenceConfig(runtime="ai-edge-litert", num_threads=3, affinity=(1, 2), delegate=delegate)
        tuned = Choice(runtime=LITERT, inference=inference, kernel="6.6.31+rpt-rpi-v8")
        store.choose(bundle, tuned)

        assert store.choice(bundle) == tuned

        store.choose(bundle, None)
        assert store.choice(bundle) is None

    def test_a_choice_of_an_agent_that_knew_no_tuning_is_read(self, store: Store) -> None:
        store.home.choice.write_text(f'{{"{"0" * 64}":{{"name":"ai-edge-litert","version":"2.3.0"}}}}')

        assert store.choice("0" * 64) == Choice(runtime=RuntimeOffer(name="ai-edge-litert", version="2.3.0"))

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "\0\0\0"])
    def test_a_file_that_makes_no_sense_means_no_choice(self, store: Store, text: str) -> None:
        store.home.choice.write_text(text)

        assert store.choice("0" * 64) is None


class TestLinks:
    def test_a_link_to_what_is_not_here_is_no_link(self, store: Store) -> None:
        store.home.current.symlink_to("bundles/" + "0" * 64)
        store.home.previous.symlink_to("/etc")

        assert (store.current(), store.previous()) == (None, None)

    def test_pointing_at_what_is_not_here_is_refused_and_changes_nothing(
        self, store: Store, made: tuple[MadeBundle, MadeBundle]
    ) -> None:
        install(store.home, made[0])

        with pytest.raises(BoardError, match="is not on this board"):
            store.point("0" * 64, made[0].digest)

        assert (store.current(), store.previous()) == (made[0].digest, None)

    def test_links_are_relative_so_that_a_home_can_be_moved(
        self, store: Store, made: tuple[MadeBundle, MadeBundle], tmp_path: Path
    ) -> None:
        install(store.home, made[0], serving=False)
        store.point(made[0].digest, None)
        store.home.path.rename(tmp_path / "moved")

        assert (tmp_path / "moved" / "current" / "model.tflite").read_bytes() == b"model 1"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for the reserve and a little more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={RESERVE_BYTES + (1 << 20)}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_that_is_full_is_said_with_figures_before_and_while_writing(small: Path) -> None:
    home = Home(small)
    home.make()
    store = Store(home)
    data = os.urandom(900_000)
    with pytest.raises(BoardError, match=r"2\.0 MiB and a reserve of 4 MiB are needed"):
        store.receive(digest.of_bytes(data), 2 << 20, 0)
    incoming = store.receive(digest.of_bytes(data), len(data), 0)
    # Somebody else fills the disk meanwhile.
    (small / "else").write_bytes(bytes(RESERVE_BYTES + (200 << 10)))

    with pytest.raises(BoardError, match="not enough space on the board"):
        incoming.write(zlib.compress(data))

    assert list(home.incoming.iterdir()) == []


def test_what_is_protected_is_not_collected(store: Store, made: tuple[MadeBundle, MadeBundle]) -> None:
    serving, guest = made
    install(store.home, serving)
    install(store.home, guest, serving=False)

    store.protect([guest.digest])
    store.collect([serving.digest])
    assert store.has_bundle(guest.digest)

    store.protect([])
    store.collect([serving.digest])
    assert not store.has_bundle(guest.digest)


def test_a_guest_leaves_nothing_behind(store: Store, made: tuple[MadeBundle, MadeBundle]) -> None:
    serving, guest = made
    install(store.home, serving)
    before = {path for path in store.home.path.rglob("*") if path.is_file()}
    install(store.home, guest, serving=False)

    store.discard(guest.digest)

    assert {path for path in store.home.path.rglob("*") if path.is_file()} - before <= {store.home.store_lock}
    assert store.verify(serving.digest).version == "1"


def test_what_serves_is_no_guest(store: Store, made: tuple[MadeBundle, MadeBundle]) -> None:
    install(store.home, made[0])

    store.discard(made[0].digest)

    assert store.verify(made[0].digest).version == "1"
