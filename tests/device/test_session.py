"""Sessions: real processes on both ends of the control socket, the host's words over pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.device.agents import DEADLINE_S, Session, chunks, running_agent, wait_until
from tests.device.bundles_made import MadeBundle, Signer, install, make_bundle
from tflotilla.device.store import Store
from tflotilla.shared.contract.manifest import MODEL
from tflotilla.shared.contract.session import Request, to_line

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home

MODEL_BYTES = bytes(os.urandom(300_000))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> MadeBundle:
    return make_bundle(tmp_path_factory.mktemp("made"), signer, model=MODEL_BYTES)


def test_hello_says_who_the_board_is_and_that_no_agent_runs(home: Home) -> None:
    with Session(home) as board:
        hello = board.hello()

    assert (hello.board, hello.fleet, hello.running, hello.serving) == ("pi-1", "tests", False, None)


def test_a_session_starts_without_numpy_and_asyncio(home: Home) -> None:
    script = "import sys; from tflotilla.device.cli import main; main(); print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script, "--home", str(home.path), "session"],
        input=b"",
        capture_output=True,
        check=True,
        timeout=DEADLINE_S,
    )

    loaded = set(done.stderr.decode().split())
    assert loaded.isdisjoint({"numpy", "asyncio", "PIL", "paho", "sqlite3"})


def test_a_bundle_goes_all_the_way(home: Home, made: MadeBundle) -> None:
    with running_agent(home), Session(home) as board:
        assert board.hello().running
        offered = board.ask(Request(verb="offer", bundle=made.digest))
        assert (offered.present, offered.current) == (False, False)
        board.send_bundle(made)
        replies = board.ask_all(Request(verb="deploy", bundle=made.digest, deployment="d1"))
        state = board.ask(Request(verb="state")).state

    states = [reply.status.state.value for reply in replies if reply.status]
    assert states == ["verifying", "probing", "switching", "confirming", "succeeded"]
    assert state is not None
    assert state.serving is not None
    assert state.serving.digest == made.digest


def test_offering_what_serves_sends_little_and_changes_nothing(home: Home, made: MadeBundle) -> None:
    install(home, made)
    before = {path: path.lstat().st_mtime_ns for path in (home.path, *home.path.rglob("*"))}

    with Session(home) as board:
        board.hello()
        offered = board.ask(Request(verb="offer", bundle=made.digest))
        board.ask(Request(verb="bye"))
        sent = board.sent_bytes

    assert (offered.present, offered.current) == (True, True)
    assert sent < 4096
    assert {path: path.lstat().st_mtime_ns for path in (home.path, *home.path.rglob("*"))} == before


def test_deploying_without_an_agent_says_how_to_start_one(home: Home, made: MadeBundle) -> None:
    with Session(home) as board:
        board.hello()
        board.send_bundle(made)
        reply = board.ask(Request(verb="deploy", bundle=made.digest, deployment="d1"))

    assert reply.error == "BoardError"
    assert "tflotilla-agent start" in (reply.message or "")


def test_rollback_of_nothing_is_a_conflict(home: Home, made: MadeBundle) -> None:
    install(home, made)

    with running_agent(home), Session(home) as board:
        board.hello()
        reply = board.ask(Request(verb="rollback"))

    assert reply.error == "ConflictError"


class TestTransfers:
    def test_a_transfer_that_breaks_goes_on_where_it_broke(self, home: Home, made: MadeBundle) -> None:
        sha = made.blob(MODEL)
        with Session(home) as board:
            board.hello()
            board.offer_manifest(made)
            board.send(to_line(Request(verb="blob", sha256=sha, size=len(MODEL_BYTES), offset=0)))
            for chunk in list(chunks(zlib.compress(MODEL_BYTES)))[:150]:
                board.send(chunk)

        with Session(home) as board:
            board.hello()
            missing = board.offer_manifest(made).missing
            assert missing is not None
            offset = {blob.sha256: blob.offset for blob in missing}[sha]
            assert 100_000 < offset < len(MODEL_BYTES)
            reply = board.send_blob(sha, MODEL_BYTES, offset=offset)

        assert reply.stored == sha
        assert Store(home).has_blob(sha, len(MODEL_BYTES))

    def test_a_kept_part_that_is_damaged_is_thrown_away(self, home: Home, made: MadeBundle) -> None:
        sha = made.blob(MODEL)
        (home.incoming / f"{sha}.part").write_bytes(bytes(1000))
        with Session(home) as board:
            board.hello()
            board.offer_manifest(made)
            refused = board.send_blob(sha, MODEL_BYTES, offset=1000)
            again = board.send_blob(sha, MODEL_BYTES)

        assert refused.error == "VerificationError"
        assert again.stored == sha

    def test_a_wrong_offset_is_refused_and_the_session_goes_on(self, home: Home, made: MadeBundle) -> None:
        with Session(home) as board:
            board.hello()
            board.offer_manifest(made)
            refused = board.send_blob(made.blob(MODEL), MODEL_BYTES, offset=5)
            board.send_bundle(made)

        assert refused.error == "ContractError"
        assert "can't go on at 5" in (refused.message or "")

    def test_a_blob_that_no_signed_manifest_names_is_refused(self, home: Home, made: MadeBundle) -> None:
        with Session(home) as board:
            board.hello()
            refused = board.send_blob(made.blob(MODEL), MODEL_BYTES)

        assert refused.error == "ContractError"
        assert "in no manifest" in (refused.message or "")
        assert not list(home.incoming.iterdir())

    def test_more_bytes_than_announced_are_refused_before_they_are_written(self, home: Home, made: MadeBundle) -> None:
        sha = made.blob("labels.txt")
        with Session(home) as board:
            board.hello()
            board.offer_manifest(made)
            board.send(to_line(Request(verb="blob", sha256=sha, size=len(made.files["labels.txt"]), offset=0)))
            for chunk in chunks(zlib.compress(bytes(50 << 20))):
                board.send(chunk)
            refused = board.reply()

        assert "more bytes came" in (refused.message or "")
        assert not (home.incoming / f"{sha}.part").exists()

    def test_what_is_no_zlib_stream_is_refused(self, home: Home, made: MadeBundle) -> None:
        with Session(home) as board:
            board.hello()
            board.offer_manifest(made)
            board.send(to_line(Request(verb="blob", sha256=made.blob(MODEL), size=len(MODEL_BYTES), offset=0)))
            for chunk in chunks(b"plain bytes, sent as they are"):
                board.send(chunk)
            refused = board.reply()

        assert "not a zlib stream" in (refused.message or "")

    def test_a_chunk_without_a_length_ends_the_session(self, home: Home, made: MadeBundle) -> None:
        with Session(home) as board:
            board.hello()
            board.offer_manifest(made)
            board.send(to_line(Request(verb="blob", sha256=made.blob(MODEL), size=len(MODEL_BYTES), offset=0)))
            board.send(b"many\n")
            refused = board.reply()
            end = board.replies.read()

        assert "not the length of a chunk" in (refused.message or "")
        assert end == b""


class TestManifests:
    def test_an_edited_one_is_refused_before_anything_is_kept(self, home: Home, made: MadeBundle) -> None:
        edited = MadeBundle(
            folder=made.folder,
            digest=made.digest,
            manifest=made.manifest,
            manifest_bytes=made.manifest_bytes.replace(b'"release":1', b'"release":9'),
            signature=made.signature,
        )
        with Session(home) as board:
            board.hello()
            reply = board.offer_manifest(edited)

        assert reply.error == "VerificationError"
        assert not list(home.incoming.iterdir())

    def test_an_unsigned_one_is_refused(self, home: Home, made: MadeBundle) -> None:
        unsigned = MadeBundle(
            folder=made.folder,
            digest=made.digest,
            manifest=made.manifest,
            manifest_bytes=made.manifest_bytes,
            signature=b"",
        )
        with Session(home) as board:
            board.hello()
            reply = board.offer_manifest(unsigned)

        assert reply.error == "VerificationError"

    def test_a_release_that_is_not_newer_is_refused_before_a_blob_is_asked_for(
        self, home: Home, made: MadeBundle, signer: Signer, tmp_path: Path
    ) -> None:
        install(home, make_bundle(tmp_path / "newer", signer, version="5", release=5))
        with Session(home) as board:
            board.hello()
            reply = board.offer_manifest(made)

        assert reply.error == "ConflictError"
        assert "release 1" in (reply.message or "")
        assert "release 5" in (reply.message or "")

    def test_what_is_not_base64_is_refused(self, home: Home) -> None:
        with Session(home) as board:
            board.hello()
            reply = board.ask(Request(verb="manifest", manifest="not/base64!", signature=""))

        assert reply.error == "ContractError"


class TestGarbage:
    @pytest.mark.parametrize(
        "line",
        [
            b"\xff\xfe\n",
            b"[]\n",
            b"{}\n",
            b'{"verb":"format the disk"}\n',
            b'{"verb":"offer"}\n',
            b'{"verb":"offer","bundle":"../../etc/passwd"}\n',
            b'{"verb":"deploy"}\n',
            b'{"verb":"blob","sha256":"$(reboot)","size":-1}\n0\n',
        ],
    )
    def test_a_frame_without_sense_gets_one_line_and_the_session_goes_on(self, home: Home, line: bytes) -> None:
        with Session(home) as board:
            board.hello()
            board.send(line)
            refused = board.reply()
            offered = board.ask(Request(verb="offer", bundle="0" * 64))

        assert refused.error == "ContractError"
        assert "\n" not in (refused.message or "\n")
        assert offered.present is False

    def test_a_frame_that_never_ends_ends_the_session(self, home: Home) -> None:
        with Session(home) as board:
            board.hello()
            board.send(b"x" * ((4 << 20) + 1))
            refused = board.reply()

        assert "a frame of more than" in (refused.message or "")

    @pytest.mark.parametrize("half", [b"", b'{"verb":"off'])
    def test_a_host_that_hangs_up_leaves_no_error(self, home: Home, half: bytes) -> None:
        with Session(home) as board:
            board.hello()
            board.send(half)
            board.requests.close()
            code = board.process.wait(DEADLINE_S)
            assert board.process.stderr is not None
            said = board.process.stderr.read()

        assert (code, said) == (0, b"")

    def test_a_configuration_that_can_t_be_read_takes_the_place_of_the_hello(self, home: Home) -> None:
        home.config.write_text("board = ")
        with Session(home) as board:
            reply = board.reply()
            code = board.process.wait(DEADLINE_S)

        assert reply.error == "ConfigError"
        assert "runs on" not in (reply.message or "")
        assert code == 3

    def test_a_broken_configuration_beside_an_agent_that_runs_says_that_it_runs_on(self, home: Home) -> None:
        with running_agent(home):
            home.config.write_text("board = ")
            with Session(home) as board:
                reply = board.reply()

        assert reply.message is not None
        assert reply.message.endswith("; the agent runs on with what it read before")


def test_a_deployment_goes_on_when_the_host_hangs_up(home: Home, made: MadeBundle) -> None:
    (home.path / "slow").touch()
    with running_agent(home):
        with Session(home) as board:
            board.hello()
            board.send_bundle(made)
            first = board.ask(Request(verb="deploy", bundle=made.digest, deployment="d1"))
            assert first.status is not None
        with Session(home) as board:
            board.hello()
            busy = board.ask(Request(verb="deploy", bundle=made.digest, deployment="d2"))
        (home.path / "slow").unlink()
        wait_until(lambda: Store(home).current() == made.digest, "the bundle serves")
        wait_until(lambda: not home.journal.exists(), "the deployment is over")

    assert busy.error == "BusyError"
