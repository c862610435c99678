"""The beginning of a session: who answers can't be told by whoever asks, only how soon."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.device.agents import Session, running_agent, serve_as_launched
from tests.device.bundles_made import MadeBundle, install
from tflotilla.device import session_start
from tflotilla.shared.contract.session import Reply, Request, hello_from_line, reply_from_line, to_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.device.home import Home


def test_a_hello_is_the_same_with_a_supervisor_and_without(home: Home, made: MadeBundle) -> None:
    install(home, made)
    with running_agent(home), Session(home) as board:
        asked = board.hello()
    with Session(home) as board:
        said = board.hello()

    facts = dataclasses.replace(said.facts, time=0.0, disk_free_bytes=0)
    assert dataclasses.replace(asked, facts=dataclasses.replace(asked.facts, time=0.0, disk_free_bytes=0)) == (
        dataclasses.replace(said, running=True, facts=facts)
    )
    assert (asked.running, said.running) == (True, False)


def test_with_a_supervisor_hello_and_offer_cost_next_to_no_imports(home: Home, made: MadeBundle) -> None:
    install(home, made)
    requests = to_line(Request(verb="offer", bundle=made.digest)) + to_line(Request(verb="bye"))
    with running_agent(home):
        (hello, offered, goodbye), modules = serve_as_launched(home, requests)

    assert hello_from_line(hello).serving is not None
    assert reply_from_line(offered) == Reply(present=True, current=True)
    assert reply_from_line(goodbye) == Reply()
    assert modules.isdisjoint({"json", "dataclasses", "tomllib", "subprocess", "tflotilla.device.session"})


def test_without_one_a_session_imports_no_benchmarks(home: Home) -> None:
    (hello,), modules = serve_as_launched(home, b"")

    assert not hello_from_line(hello).running
    assert modules.isdisjoint({"importlib.metadata", "argparse", "tflotilla.shared.contract.benchmark", "shutil"})


def test_after_a_quick_beginning_everything_else_goes_on(home: Home, made: MadeBundle) -> None:
    with running_agent(home), Session(home) as board:
        board.hello()
        first = board.ask(Request(verb="offer", bundle=made.digest))
        board.send_bundle(made)
        second = board.ask(Request(verb="offer", bundle=made.digest))
        replies = board.ask_all(Request(verb="deploy", bundle=made.digest, deployment="d1"))
        third = board.ask(Request(verb="offer", bundle=made.digest))

    assert (first.present, second.present, third.present) == (False, False, True)
    assert replies[-1].status is not None
    assert replies[-1].status.state.value == "succeeded"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"bundle":"../../etc","verb":"offer"}\n', "not a SHA-256 digest"),
        (b'{"bundle":"x","verb":"offer","verb":"bye"}\n', "a key stands twice"),
        (b"[]\n", "expected a table"),
        (b"\xff\n", "not valid JSON"),
    ],
)
def test_a_first_request_without_sense_is_answered_as_any(home: Home, line: bytes, words: str) -> None:
    with running_agent(home), Session(home) as board:
        board.hello()
        board.send(line)
        refused = board.reply()
        offered = board.ask(Request(verb="offer", bundle="0" * 64))

    assert refused.error == "ContractError"
    assert words in (refused.message or "")
    assert offered.present is False


def test_a_broken_configuration_is_told_in_place_of_a_hello(home: Home) -> None:
    with running_agent(home):
        home.config.write_text("board = ")
        (reply,), _modules = serve_as_launched(home, b"")

    assert reply_from_line(reply).error == "ConfigError"


@contextlib.contextmanager
def _supervisor_that_says(home: Home, answer: bytes) -> Iterator[None]:
    """Answer everything with these bytes and hang up."""
    home.make()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(home.socket))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\n",
        b'{"agent_version":"0.0.1","board":"pi-9"}\n',
        b'{"agent_version":"0.1.0","board":"pi-9"',
        b'{"done":true,"error":"ContractError","message":"control request.verb: \\"hello\\" is not allowed here"}\n',
    ],
    ids=["nothing", "garbage", "an older one", "half a line", "one that knows no hello"],
)
def test_a_supervisor_that_can_not_say_it_is_done_without(home: Home, answer: bytes) -> None:
    with _supervisor_that_says(home, answer):
        (hello,), _modules = serve_as_launched(home, b"")

    assert hello_from_line(hello).board == "pi-1"


def test_a_host_that_hangs_up_at_the_hello_leaves_no_error(home: Home) -> None:
    with running_agent(home):
        replies = io.BytesIO()

        code = session_start.serve(str(home.path), io.BytesIO(b""), replies)

    assert code == 0
    assert hello_from_line(replies.getvalue()).running
