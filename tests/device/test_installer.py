"""The installer over a real store and real signatures, with a fake supervisor: what lies there, serves, is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.device.bundles_made import MadeBundle, Signer, install, make_bundle, make_signer, receive
from tests.device.fake_serving import CRASHING, NEW_RUNTIME, OLD_RUNTIME, SLOWER, FakeServing, probe_report
from tflotilla.device.choice import Choice
from tflotilla.device.installer import Installer
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.errors import BoardError, ConflictError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.deployment import DeploymentStatus


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> MadeBundle:
    return make_bundle(tmp_path_factory.mktemp("three"), signer, version="3.0.0", release=3, model=b"three")


class Board:
    """One installer with its fake supervisor, and what it told."""

    def __init__(self, home: Home, inference: InferenceConfig = InferenceConfig()) -> None:  # noqa: B008 - it is frozen
        self.home = home
        self.store = Store(home)
        self.serving = FakeServing()
        self._rollbacks = 0
        self.told: list[DeploymentStatus] = []
        self.installer = Installer(self.store, self.serving, inference, on_status=self.told.append)

    def deploy(self, made: MadeBundle, *, deployment: str = "d1") -> DeploymentStatus:
        return asyncio.run(self.installer.deploy(deployment, made.digest, lambda _status: None))

    def rollback(self) -> DeploymentStatus:
        self._rollbacks += 1
        return asyncio.run(self.installer.rollback(f"r{self._rollbacks}", lambda _status: None))

    @property
    def chain(self) -> list[str]:
        return [status.state.value for status in self.told]


def test_a_first_bundle_goes_all_the_way(home: Home, one: MadeBundle) -> None:
    receive(home, one)
    board = Board(home)

    last = board.deploy(one)

    assert board.chain == ["verifying", "probing", "switching", "confirming", "succeeded"]
    assert last == board.told[-1]
    assert board.store.current() == one.digest
    assert board.store.previous() is None
    assert board.serving.serving == one.digest
    assert not home.journal.exists()
    assert list(home.incoming.iterdir()) == []


def test_the_model_is_stored_once_though_it_has_two_names(home: Home, one: MadeBundle) -> None:
    receive(home, one)
    Board(home).deploy(one)

    blob = home.store / one.blob("model.tflite")[:2] / one.blob("model.tflite")
    assert blob.samefile(home.bundle(one.digest) / "model.tflite")


def test_a_second_bundle_leaves_the_first_to_go_back_to(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)

    board.deploy(two)

    assert (board.store.current(), board.store.previous()) == (two.digest, one.digest)


def test_the_third_bundle_makes_the_first_go(home: Home, one: MadeBundle, two: MadeBundle, three: MadeBundle) -> None:
    install(home, one)
    board = Board(home)
    for made in (two, three):
        receive(home, made)
        board.deploy(made)

    assert {folder.name for folder in home.bundles.iterdir()} == {two.digest, three.digest}
    assert not board.store.has_blob(one.blob("model.tflite"), 3)
    # The labels are the same file in all three.
    assert board.store.missing(three.manifest) == ()


def test_auto_takes_the_fastest_runtime_and_remembers_it(home: Home, one: MadeBundle) -> None:
    receive(home, one)
    board = Board(home)
    board.serving.reports = (probe_report(OLD_RUNTIME, p50_ns=500), probe_report(NEW_RUNTIME, p50_ns=20))

    board.deploy(one)

    assert ("serve", one.digest, NEW_RUNTIME) in board.serving.calls
    assert Store(home).choice(one.digest) == Choice(runtime=NEW_RUNTIME)


def test_what_fails_its_probe_changes_nothing(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.serving.reports = (probe_report(reason="output 0 is 7 LSB off, allowed is 1"),)

    last = board.deploy(two)

    assert board.chain == ["verifying", "probing", "rejected"]
    assert (last.error, last.detail) == (
        "ProbeError",
        "tflite-runtime==2.14.0: output 0 is 7 LSB off, allowed is 1",
    )
    assert board.store.current() == one.digest
    # Never stopped, so never started again.
    assert [call for call in board.serving.calls if call[0] == "serve"] == []


def test_what_misbehaves_is_undone_by_itself(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.serving.observation = CRASHING

    last = board.deploy(two)

    assert board.chain == ["verifying", "probing", "switching", "confirming", "rolled_back"]
    assert "crashed 2 times" in last.detail
    assert (board.store.current(), board.store.previous()) == (one.digest, None)
    assert board.serving.serving == one.digest
    assert not home.journal.exists()


def test_a_slower_release_is_undone(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.serving.observation = SLOWER

    last = board.deploy(two)

    assert board.chain == ["verifying", "probing", "switching", "confirming", "rolled_back"]
    assert "p90 latency 50.00 ms against 1.00 ms" in last.detail


def test_another_model_has_a_pace_of_its_own(home: Home, one: MadeBundle, signer: Signer, tmp_path: Path) -> None:
    """A detector after a classifier is not a slow classifier."""
    install(home, one)
    detector = make_bundle(tmp_path / "detector", signer, name="detector")
    receive(home, detector)
    board = Board(home)
    board.serving.observation = SLOWER

    board.deploy(detector)

    assert board.chain[-1] == "succeeded"


def test_what_does_not_come_up_is_undone_by_itself(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.serving.broken = {two.digest: ModelError("the worker crashed (SIGSEGV) while loading")}

    last = board.deploy(two)

    assert board.chain == ["verifying", "probing", "switching", "rolled_back"]
    assert (last.error, last.detail) == ("ModelError", "the worker crashed (SIGSEGV) while loading")
    assert board.serving.serving == one.digest


def test_a_first_bundle_that_misbehaves_leaves_a_board_that_serves_nothing(home: Home, one: MadeBundle) -> None:
    receive(home, one)
    board = Board(home)
    board.serving.observation = CRASHING

    board.deploy(one)

    assert board.store.current() is None
    assert board.serving.calls[-1] == ("serve", None, None)


def test_a_release_that_is_not_newer_is_refused_with_both_numbers(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, two)
    receive(home, one)
    board = Board(home)

    last = board.deploy(one)

    assert board.chain == ["verifying", "rejected"]
    assert last.error == "ConflictError"
    assert "digits-1.0.0 has release 1, and digits-2.0.0 with release 2 serves" in last.detail


def test_a_lower_release_of_another_model_is_welcome(
    home: Home, two: MadeBundle, signer: Signer, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", signer, name="faces", release=1)
    install(home, two)
    receive(home, other)

    assert Board(home).deploy(other).state.value == "succeeded"


def test_what_serves_already_is_not_touched(home: Home, one: MadeBundle) -> None:
    install(home, one)
    board = Board(home)
    before = {path: path.lstat().st_mtime_ns for path in home.path.rglob("*")}

    last = board.deploy(one)

    assert (last.state.value, last.detail) == ("succeeded", "serves already")
    assert {path: path.lstat().st_mtime_ns for path in home.path.rglob("*")} == before
    assert board.serving.calls == []


@pytest.mark.parametrize("name", ["manifest.json", "model.tflite"])
def test_a_bundle_edited_on_its_way_is_refused(home: Home, one: MadeBundle, two: MadeBundle, name: str) -> None:
    install(home, one)
    receive(home, two)
    edited = home.incoming / two.digest / name
    if name == "model.tflite":
        edited = home.store / two.blob(name)[:2] / two.blob(name)
    edited.write_bytes(edited.read_bytes().replace(b"two", b"owt"))
    if name == "manifest.json":
        edited.write_bytes(two.manifest_bytes.replace(b'"2.0.0"', b'"2.0.1"'))
    board = Board(home)

    last = board.deploy(two)

    assert board.chain == ["verifying", "rejected"]
    assert last.error == "VerificationError"
    assert not home.bundle(two.digest).exists()


def test_a_stranger_s_bundle_is_refused(home: Home, tmp_path: Path) -> None:
    stranger = make_bundle(tmp_path / "stranger", make_signer(tmp_path / "keys"))
    receive(home, stranger)

    assert Board(home).deploy(stranger).error == "VerificationError"


def test_a_board_that_trusts_nobody_says_what_is_missing(home: Home, one: MadeBundle) -> None:
    receive(home, one)
    home.allowed_signers.unlink()

    last = Board(home).deploy(one)

    assert (last.state.value, last.error) == ("failed", "BoardError")
    assert "allowed_signers is missing" in last.detail


def test_an_admitted_bundle_that_rotted_is_sent_again_next_time(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    install(home, two, serving=False)
    rotten = home.bundle(two.digest) / "model.tflite"
    rotten.write_bytes(b"rot")
    board = Board(home)

    assert board.deploy(two).error == "VerificationError"
    assert [sha for sha, _size in board.store.missing(two.manifest)] == [two.blob("model.tflite")]
    receive(home, two)
    assert board.deploy(two, deployment="d2").state.value == "succeeded"


def test_rollback_brings_the_previous_back_and_can_be_undone(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.deploy(two)
    board.told.clear()

    board.rollback()

    assert board.chain == ["verifying", "switching", "succeeded"]
    assert (board.store.current(), board.store.previous()) == (one.digest, two.digest)
    assert board.serving.serving == one.digest
    board.rollback()
    assert (board.store.current(), board.store.previous()) == (two.digest, one.digest)


def test_rollback_without_a_previous_bundle_is_a_conflict(home: Home, one: MadeBundle) -> None:
    install(home, one)

    with pytest.raises(ConflictError, match="nothing to roll back to"):
        Board(home).rollback()


def test_rollback_to_a_damaged_bundle_is_refused(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.deploy(two)
    (home.bundle(one.digest) / "labels.txt").write_bytes(b"rot")

    last = board.rollback()

    assert (last.state.value, last.error) == ("rejected", "VerificationError")
    assert board.store.current() == two.digest
    with pytest.raises(ConflictError):
        board.rollback()


def test_an_unknown_bundle_is_a_board_error(home: Home) -> None:
    with pytest.raises(BoardError, match="not on this board"):
        asyncio.run(Board(home).installer.deploy("d", "0" * 64, lambda _status: None))


def test_a_bug_in_the_supervisor_undoes_the_deployment(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)
    board = Board(home)
    board.serving.observation = ZeroDivisionError("oops")

    last = board.deploy(two)

    assert last.state.value == "rolled_back"
    assert "a bug of the agent" in last.detail
    assert board.store.current() == one.digest


class TestWhileADeploymentGoesOn:
    def test_a_second_one_is_refused(self, home: Home, one: MadeBundle, two: MadeBundle) -> None:
        async def story() -> list[DeploymentStatus]:
            board, first = await _held(home, one)
            receive(home, two)
            for attempt in (
                board.installer.deploy("d2", two.digest, lambda _status: None),
                board.installer.rollback("r", lambda _status: None),
            ):
                with pytest.raises(ConflictError, match=r"digits-1\.0\.0 is being deployed \(probing\)"):
                    await attempt
            _release(board)
            await first
            return board.told

        told = asyncio.run(story())

        assert told[-1].state.value == "succeeded"

    def test_it_survives_whoever_asked_for_it(self, home: Home, one: MadeBundle) -> None:
        async def story() -> Board:
            board, first = await _held(home, one)
            first.cancel()
            _release(board)
            await board.installer.settle()
            return board

        board = asyncio.run(story())

        assert board.chain[-1] == "succeeded"
        assert board.store.current() == one.digest

    def test_asking_again_with_its_id_tells_the_whole_story(self, home: Home, one: MadeBundle) -> None:
        async def story() -> list[str]:
            board, first = await _held(home, one)
            first.cancel()
            heard: list[DeploymentStatus] = []
            again = asyncio.ensure_future(board.installer.deploy("d1", one.digest, heard.append))
            await asyncio.sleep(0)
            _release(board)
            await again
            return [status.state.value for status in heard]

        heard = asyncio.run(story())

        assert heard == ["verifying", "probing", "switching", "confirming", "succeeded"]

    def test_stopping_the_agent_leaves_it_to_the_next_start(self, home: Home, one: MadeBundle, two: MadeBundle) -> None:
        install(home, one)
        receive(home, two)

        async def stop() -> None:
            board, first = await _held(home, two)
            await board.installer.stop()
            await asyncio.wait([first])

        async def start() -> Board:
            board = Board(home)
            await board.installer.start()
            await board.installer.settle()
            return board

        asyncio.run(stop())
        assert home.journal.exists()
        board = asyncio.run(start())

        # The old one serves first, whatever becomes of the new one.
        assert board.serving.calls[0] == ("serve", one.digest, None)
        assert board.chain == ["verifying", "probing", "switching", "confirming", "succeeded"]
        assert board.told[0].detail == "attempt 2 of 3"
        assert board.store.current() == two.digest


@pytest.mark.parametrize("bad", [False, True])
def test_asking_again_when_it_is_over_tells_the_story_and_does_nothing(
    home: Home, one: MadeBundle, two: MadeBundle, *, bad: bool
) -> None:
    """A host that lost the line can't know whether it is over; what was undone must not be tried again by that."""
    install(home, one)
    receive(home, two)

    async def story() -> tuple[Board, DeploymentStatus, DeploymentStatus, list[DeploymentStatus]]:
        board = Board(home)
        if bad:
            board.serving.observation = CRASHING
        first = await board.installer.deploy("d1", two.digest, lambda _status: None)
        board.serving.calls.clear()
        heard: list[DeploymentStatus] = []
        return board, first, await board.installer.deploy("d1", two.digest, heard.append), heard

    board, first, again, heard = asyncio.run(story())

    assert again == first
    assert heard == board.told
    assert board.serving.calls == []


def test_a_rollback_asked_for_twice_does_not_undo_itself(home: Home, one: MadeBundle, two: MadeBundle) -> None:
    install(home, one)
    receive(home, two)

    async def story() -> Board:
        board = Board(home)
        await board.installer.deploy("d1", two.digest, lambda _status: None)
        for _time in range(2):
            await board.installer.rollback("r1", lambda _status: None)
        return board

    assert asyncio.run(story()).store.current() == one.digest


def test_a_journal_that_can_t_be_read_costs_no_more_than_the_report(home: Home, one: MadeBundle) -> None:
    install(home, one)
    home.journal.write_bytes(b"\0" * 100)
    board = Board(home)

    asyncio.run(board.installer.start())

    assert board.serving.serving == one.digest


def test_a_listener_that_fails_does_not_undo_a_deployment(home: Home, one: MadeBundle) -> None:
    receive(home, one)

    def hang_up(_status: DeploymentStatus) -> None:
        raise BrokenPipeError

    listener: Callable[[DeploymentStatus], None] = hang_up

    last = asyncio.run(Board(home).installer.deploy("d", one.digest, listener))

    assert last.state.value == "succeeded"


async def _held(home: Home, made: MadeBundle) -> tuple[Board, asyncio.Future[DeploymentStatus]]:
    """Deploy up to the probe, and hold it there."""
    receive(home, made)
    board = Board(home)
    board.serving.gate = asyncio.Event()
    deployment = asyncio.ensure_future(board.installer.deploy("d1", made.digest, lambda _status: None))
    await board.serving.probing.wait()
    return board, deployment


def _release(board: Board) -> None:
    if board.serving.gate is not None:
        board.serving.gate.set()
