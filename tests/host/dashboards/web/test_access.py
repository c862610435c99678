"""Under which names the page is asked, and who holds the token."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tflotilla.host.dashboards.web import access, server
from tflotilla.host.dashboards.web.access import Token
from tflotilla.shared.contract.errors import InputError

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("pi.local:8080", "pi.local"),
        ("PI.local.", "pi.local"),
        ("[::1]:8080", "::1"),
        ("::1", "::1"),
        ("[::1]evil.example", "[::1]evil.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("", ""),
    ],
)
def test_the_host_is_read_from_its_header(header: str, host: str) -> None:
    assert host == access.host_of(header)


def test_a_page_on_loopback_has_no_other_name_than_localhost() -> None:
    names = access.own_names("127.0.0.1")

    assert access.is_ours("localhost:8080", names)
    assert not access.is_ours(f"{socket.gethostname()}x.example", names)
    assert not access.is_ours(None, names)


def test_a_page_on_the_network_answers_to_the_machines_names_and_those_it_was_given() -> None:
    names = access.own_names("0.0.0.0", ["fleet.example"])  # noqa: S104 - nothing is bound

    ours = (socket.gethostname(), f"{socket.gethostname().split('.')[0]}.local:80", "fleet.example", "192.168.1.2:8080")
    assert {True} == {access.is_ours(name, names) for name in ours}
    assert not access.is_ours("evil.example", names)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pi", False)],  # noqa: S104
)
def test_only_loopback_is_for_this_machine_alone(host: str, is_loopback: bool) -> None:  # noqa: FBT001
    assert is_loopback == access.is_loopback(host)


def test_a_token_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {SECRET} \nnothing\n")
    file.chmod(0o600)
    told: list[str] = []
    token = access.read_token(file, tell=told.append)

    assert asyncio.run(token.allows(f"bearer {SECRET}"))
    assert [] == told


def test_a_token_that_others_can_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(0o644)
    told: list[str] = []
    access.read_token(file, tell=told.append)

    assert [f"token file {file} can be read by others; `chmod 600 {file}`"] == told


@pytest.mark.parametrize(
    "content", [b"", b"short\n", b"\n" + SECRET.encode(), b"x" * 2000, b"\xff" * 30, "é".encode() * 20]
)
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)

    with pytest.raises(InputError, match=str(file)):
        access.read_token(file)


def test_a_token_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        access.read_token(tmp_path / "token")


def test_a_file_without_an_end_is_no_token() -> None:
    with pytest.raises(InputError, match="token file /dev/zero: its first line"):
        access.read_token(Path("/dev/zero"))


def test_whoever_guesses_waits_and_does_not_keep_others_waiting() -> None:
    async def story() -> tuple[int, bool]:
        token = Token(SECRET, delay_s=3600)
        guesses = [asyncio.create_task(token.allows(f"Bearer guess-{number}")) for number in range(50)]
        await asyncio.sleep(0)
        right = await token.allows(f"Bearer {SECRET}")
        done = sum(guess.done() for guess in guesses)
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
        return done, right

    # Those that are too many to wait are refused at once: nobody fills the memory with guesses.
    assert (30, True) == asyncio.run(story())


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with server.listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1 port {port}: Address already in use; choose another"):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "x" * 300])
def test_an_address_that_is_not_ours_is_said_in_one_line(host: str) -> None:
    with pytest.raises(InputError, match="can't be served on"):
        server.listen(host, 0)
