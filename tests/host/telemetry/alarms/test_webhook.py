"""A webhook against a real server that answers as servers do."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tflotilla.host.telemetry.alarms import webhook
from tflotilla.host.telemetry.alarms.rules import WebhookConfig
from tflotilla.shared.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 30.0
DOCUMENT = {"board": "pi-1", "rule": "off", "at": 12.5, "summary": 'barn: pi-1 "off"'}


class Receiver:
    """A server on loopback: keeps what is posted, answers with the next of its statuses."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.posted: list[tuple[dict[str, str], Any]] = []
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                with receiver.arrived:
                    receiver.posted.append((dict(self.headers), json.loads(body)))
                    receiver.arrived.notify_all()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-hook"

    def await_posts(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.posted) >= count, PATIENCE_S)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_a_change_is_posted_as_json(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush\n")
    config = WebhookConfig(url=receiver.url, token_file="token", headers={"X-Fleet": "barn"})

    with webhook.opened(config, folder=tmp_path, tell=print) as hook:
        hook.offer(DOCUMENT)
        receiver.await_posts(1)

    headers, body = receiver.posted[0]
    assert DOCUMENT == body
    assert ("Bearer hush", "barn", "application/json") == (
        headers["Authorization"],
        headers["X-Fleet"],
        headers["Content-Type"],
    )


def test_a_body_of_ones_own_is_filled_in_and_stays_json(receiver: Receiver, tmp_path: Path) -> None:
    body = {"text": "{summary}!", "nested": [{"when": "{at}", "who": "{board}/{rule}"}], "plain": 3}

    with webhook.opened(WebhookConfig(url=receiver.url, body=body), folder=tmp_path, tell=print) as hook:
        hook.offer(DOCUMENT)
        receiver.await_posts(1)

    expected = {"text": 'barn: pi-1 "off"!', "nested": [{"when": 12.5, "who": "pi-1/off"}], "plain": 3}
    assert expected == receiver.posted[0][1]


def test_a_server_that_is_busy_is_asked_again(receiver: Receiver, tmp_path: Path) -> None:
    receiver.statuses = [503]
    told: list[str] = []

    with webhook.opened(WebhookConfig(url=receiver.url), folder=tmp_path, tell=told.append) as hook:
        hook.offer(DOCUMENT)
        receiver.await_posts(2)

    (line,) = told
    assert line.endswith("answered 503 Service Unavailable; trying again in 1 s")
    assert "secret" not in line


@pytest.mark.parametrize("status", [400, 403, 302])
def test_a_server_that_refuses_is_not_asked_again(status: int, receiver: Receiver, tmp_path: Path) -> None:
    receiver.statuses = [status]
    told: list[str] = []

    with webhook.opened(WebhookConfig(url=receiver.url), folder=tmp_path, tell=told.append) as hook:
        hook.offer(DOCUMENT)
        hook.offer(DOCUMENT)
        receiver.await_posts(2)

    assert 2 == len(receiver.posted)
    assert f"answered {status}" in told[0]
    assert "1 changes were not posted to the webhook" == told[-1]


def test_nobody_waits_for_a_server_that_is_not_there(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.server.server_close()
    told: list[str] = []

    with webhook.opened(WebhookConfig(url=receiver.url, timeout_s=1.0), folder=tmp_path, tell=told.append) as hook:
        for _ in range(1500):
            hook.offer(DOCUMENT)

    assert "can't be reached" in told[0]
    assert "1500 changes were not posted to the webhook" == told[-1]


def test_a_secret_url_stands_in_a_file(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "hook").write_text(receiver.url + "\n")

    with webhook.opened(WebhookConfig(url_file="hook"), folder=tmp_path, tell=print) as hook:
        hook.offer(DOCUMENT)
        receiver.await_posts(1)

    assert 1 == len(receiver.posted)


@pytest.mark.parametrize("text", ["", "file:///etc/passwd", "https://"])
def test_a_file_without_a_url_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "hook").write_text(text)

    with (
        pytest.raises(ConfigError, match="its URL must be like https://host/path"),
        webhook.opened(WebhookConfig(url_file="hook"), folder=tmp_path, tell=print),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://anna:hush@host/", "must have no login"),
        ("https://host:99999/", "see its host and its port"),
        ("https://host:hush/", "see its host and its port"),
        ("https://host:0/", "a character or a port"),
        ("https://host/a b", "a character or a port"),
        ("https://host/hush\u00e9", "percent-encode"),
        ("https://host/\x7f", "a character or a port"),
        (f"https://{'a' * 70}/", "see its host and its port"),
        ("https://[::1", "see its host and its port"),
    ],
)
def test_a_url_that_can_not_be_posted_to_is_found_before_the_first_alarm(
    url: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        webhook.poster(WebhookConfig(url=url), folder=tmp_path)

    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two\nlines", "h\u00fcsh"])
def test_a_token_that_can_not_be_sent_is_one_line(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token)

    with pytest.raises(ConfigError, match=r"webhook\.token_file: .*that is no token"):
        webhook.poster(WebhookConfig(url="https://host/", token_file="token"), folder=tmp_path)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"webhook\.url_file: .*hook: No such file"),
        webhook.opened(WebhookConfig(url_file="hook"), folder=tmp_path, tell=print),
    ):
        pass
