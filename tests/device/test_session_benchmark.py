"""Benchmarks over a session: bundles that are only measured, samples, reports; real processes on both ends."""

from __future__ import annotations

import base64
import os
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.device import fake_cell
from tests.device.agents import Session, chunks, running_agent, wait_until
from tests.device.benchmark_agents import kinds
from tests.device.bundles_made import MadeBundle, Signer, install, make_bundle
from tflotilla.device.samples import Samples
from tflotilla.device.store import Store
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest
from tflotilla.shared.contract.session import MAX_SAMPLES_BYTES, Reply, Request, to_line

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home

SAMPLES = b"samples" * 1000


def benchmark(board: Session, *behaviours: str, name: str = "r", bundle: str | None = None) -> list[Reply]:
    configurations = tuple(fake_cell.configuration(each) for each in behaviours)
    asked = BenchmarkRequest(request=name, configurations=configurations, bundle=bundle)
    return board.ask_all(Request(verb="benchmark", benchmark=asked))


def reports(replies: list[Reply]) -> list[BenchmarkReport]:
    return [reply.benchmark for reply in replies if reply.benchmark is not None]


def send_samples(board: Session, data: bytes, *, sha256: str | None = None, size: int | None = None) -> Reply:
    named = digest.of_bytes(data) if sha256 is None else sha256
    board.send(to_line(Request(verb="samples", sha256=named, size=len(data) if size is None else size)))
    for chunk in chunks(zlib.compress(data)):
        board.send(chunk)
    return board.reply()


def offer_to_measure(board: Session, made: MadeBundle) -> Reply:
    return board.ask(
        Request(
            verb="manifest",
            manifest=base64.b64encode(made.manifest_bytes).decode(),
            signature=base64.b64encode(made.signature).decode(),
            purpose="benchmark",
        )
    )


def test_an_older_release_can_be_measured_and_not_deployed(home: Home, tmp_path: Path, signer: Signer) -> None:
    serving = make_bundle(tmp_path / "new", signer, release=7)
    older = make_bundle(tmp_path / "old", signer, release=3, model=os.urandom(1000))
    install(home, serving)
    with running_agent(home), Session(home) as board:
        board.hello()
        assert board.offer_manifest(older).error == "ConflictError"

        missing = offer_to_measure(board, older).missing
        assert missing
        contents = {older.blob(name): data for name, data in older.files.items()}
        for blob in missing:
            assert board.send_blob(blob.sha256, contents[blob.sha256]).stored == blob.sha256
        heard = reports(benchmark(board, "measures", bundle=older.digest))
        deployed = board.ask_all(Request(verb="deploy", bundle=older.digest, deployment="d"))

    assert kinds(heard) == ["figures"]
    assert heard[0].identity is not None
    assert heard[0].identity.bundle == older.digest
    assert Store(home).current() == serving.digest
    status = deployed[-1].status
    assert status is not None
    assert (status.state.value, status.error) == ("rejected", "ConflictError")


def test_what_nobody_signed_is_not_measured_either(home: Home, tmp_path: Path, signer: Signer) -> None:
    made = make_bundle(tmp_path / "made", signer)
    with Session(home) as board:
        board.hello()
        reply = board.ask(
            Request(
                verb="manifest",
                manifest=base64.b64encode(made.manifest_bytes + b" ").decode(),
                signature=base64.b64encode(made.signature).decode(),
                purpose="benchmark",
            )
        )

    assert reply.error == "VerificationError"
    assert list(home.incoming.iterdir()) == []


def test_reports_come_one_by_one_and_again_when_asked_again(home: Home, tmp_path: Path, signer: Signer) -> None:
    install(home, make_bundle(tmp_path / "made", signer))
    with running_agent(home):
        with Session(home) as board:
            board.hello()
            replies = benchmark(board, "crashes", "measures")
        with Session(home) as board:
            board.hello()
            again = benchmark(board, "crashes", "measures")

    assert [reply.done for reply in replies] == [False, False, True]
    assert kinds(reports(replies)) == ["crashed", "figures"]
    assert again == replies


def test_a_benchmark_goes_on_when_the_host_hangs_up(home: Home, tmp_path: Path, signer: Signer) -> None:
    install(home, make_bundle(tmp_path / "made", signer))
    asked = BenchmarkRequest(request="r", configurations=tuple(map(fake_cell.configuration, ("waits", "measures"))))
    with running_agent(home):
        with Session(home) as board:
            board.hello()
            board.send(to_line(Request(verb="benchmark", benchmark=asked)))
            wait_until(lambda: home.benchmark.exists() and '"began":0' in home.benchmark.read_text(), "the first cell")
            with Session(home) as other:
                other.hello()
                (busy,) = benchmark(other, name="other")
            board.process.kill()
        (home.bundles / "go").touch()
        with Session(home) as board:
            board.hello()
            heard = reports(board.ask_all(Request(verb="benchmark", benchmark=asked)))

    assert busy.error == "ConflictError"
    assert busy.message == "benchmark 'r' is running on this board; try again when it is done"
    assert kinds(heard) == ["figures", "figures"]


def test_a_benchmark_without_a_request_is_one_line(home: Home) -> None:
    with Session(home) as board:
        board.hello()
        reply = board.ask(Request(verb="benchmark"))

    assert reply.message == "session request: key 'benchmark' is missing"


def test_a_benchmark_without_an_agent_says_how_to_start_one(home: Home) -> None:
    with Session(home) as board:
        board.hello()
        (reply,) = benchmark(board, "measures")

    assert reply.error == "BoardError"
    assert "start it with" in (reply.message or "")


def test_samples_arrive_once_and_are_offered_by_their_digest(home: Home) -> None:
    sha256 = digest.of_bytes(SAMPLES)
    with Session(home) as board:
        board.hello()
        assert board.ask(Request(verb="offer", sha256=sha256)).present is False
        assert send_samples(board, SAMPLES).stored == sha256
        assert board.ask(Request(verb="offer", sha256=sha256)).present is True

    assert Samples(Store(home)).path(sha256).read_bytes() == SAMPLES


def test_samples_that_are_asked_for_are_not_tidied_away_before_they_are_used(home: Home) -> None:
    sha256 = digest.of_bytes(SAMPLES)
    with Session(home) as board:
        board.hello()
        send_samples(board, SAMPLES)
        os.utime(home.samples / sha256, (0, 0))
        board.ask(Request(verb="offer", sha256=sha256))

    kept = Samples(Store(home))
    kept.tidy((), older_than_s=3600.0)

    assert kept.path(sha256).read_bytes() == SAMPLES


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"sha256": "ab" * 32}, "VerificationError", "samples abababababab arrived damaged; send them again"),
        ({"sha256": "../../agent.toml"}, "ContractError", "is not a SHA-256 digest"),
        ({"size": MAX_SAMPLES_BYTES + 1}, "ContractError", "at most 64 MiB can be sent"),
        ({"size": 0}, "ContractError", "samples of 0 bytes"),
        ({"size": 10}, "ContractError", "more bytes came"),
        ({"size": 10_000}, "ContractError", "3000 bytes are missing"),
    ],
)
def test_samples_that_are_not_what_was_said_leave_nothing_and_the_session_goes_on(
    home: Home, change: dict[str, object], error: str, words: str
) -> None:
    with Session(home) as board:
        board.hello()
        refused = send_samples(board, SAMPLES, **change)  # type: ignore[arg-type]
        assert send_samples(board, SAMPLES).stored == digest.of_bytes(SAMPLES)

    assert refused.error == error
    assert words in (refused.message or "")
    assert [entry.name for entry in home.samples.iterdir() if not entry.name.endswith(".part")] == [
        digest.of_bytes(SAMPLES)
    ]
