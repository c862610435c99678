"""Posts changes of alarms as JSON to a URL; its only door to HTTP.

    with webhook.opened(config, folder=…, tell=…) as hook:
        hook.offer(document)            # returns at once

Rules it keeps: who offers is never kept waiting; what waits is bounded, the oldest goes first and is counted; each is
tried a few times, waiting longer each time; every try has an end; what goes wrong is said in one line, which names the
host and not the rest of the URL, for that may be a secret; a redirection is refused, because it would lose the body.
What it does NOT do: keep anything over a restart. Who must not miss a change reads the retained MQTT message.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from tflotilla.shared.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message
    from pathlib import Path

    from tflotilla.host.telemetry.alarms.rules import WebhookConfig

_MOST_WAITING = 1000
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
#: How long the end of the command waits for what is left to be posted.
_PATIENCE_S = 10.0
#: They may pass: the server is busy, or tells us to slow down.
_TRANSIENT = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def filled(body: Any, document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return a body with its placeholders filled in; a text that is nothing but one becomes the value itself."""
    if isinstance(body, str):
        whole = _PLACEHOLDER.fullmatch(body)
        if whole is not None:
            return document[whole[1]]
        return _PLACEHOLDER.sub(lambda found: str(document[found[1]]), body)
    if isinstance(body, Mapping):
        return {key: filled(value, document) for key, value in body.items()}
    if isinstance(body, list):
        return [filled(value, document) for value in body]
    return body


class Webhook:
    """Posts in a thread of its own; made by `opened`."""

    def __init__(
        self, request: Callable[[bytes], urllib.request.Request], config: WebhookConfig, tell: Callable[[str], None]
    ) -> None:
        self._request = request
        self._config = config
        self._tell = tell
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def offer(self, document: Mapping[str, Any]) -> None:
        """Have a change posted; returns at once."""
        with self._changed:
            self._waiting.append(document)
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()
                self.lost += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Try once more what is left, for some seconds at most."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)
        left = len(self._waiting) + self.lost
        if left:
            self._tell(f"{left} changes were not posted to the webhook")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                if not self._waiting:
                    return
                document = self._waiting.popleft()
            self._post(document)

    def _post(self, document: Mapping[str, Any]) -> None:
        body = document if self._config.body is None else filled(self._config.body, document)
        data = json.dumps(body, ensure_ascii=False).encode()
        wait_s = _FIRST_WAIT_S
        for left in reversed(range(self._config.tries)):
            problem, again = self._try(data)
            if problem is None:
                return
            more = f"; trying again in {wait_s:g} s" if again and left else ""
            self._tell(f"webhook: {problem}{more}")
            if not again or not left or self._closing.wait(wait_s):
                break
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        self.lost += 1

    def _try(self, data: bytes) -> tuple[str | None, bool]:
        """Post once; return what went wrong, None for nothing, and whether it may go better later."""
        request = self._request(data)
        where = request.host
        try:
            with _OPENER.open(request, timeout=self._config.timeout_s) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            with error:
                again = error.code >= _SERVER_ERROR or error.code in _TRANSIENT
                return f"{where} answered {error.code} {error.reason}", again
        except urllib.error.URLError as error:
            return f"{where} can't be reached: {error.reason}", True
        except (OSError, http.client.HTTPException) as error:
            return f"{where}: {error or type(error).__name__}", True
        return None, False


def poster(config: WebhookConfig, *, folder: Path) -> Callable[[bytes], urllib.request.Request]:
    """Return what makes a request of a body; files of the configuration are relative to `folder`.

    Raises:
        ConfigError: a file can't be read, or what stands in it can't be used; secrets are not repeated.

    """
    url = _read(folder, "url_file", config.url_file) if config.url is None else config.url
    _check_url(url)
    headers = {"Content-Type": "application/json", "User-Agent": "tflotilla", **config.headers}
    if config.token_file is not None:
        token = _read(folder, "token_file", config.token_file)
        if not token or not (token.isascii() and token.isprintable()):
            message = (
                f"webhook.token_file: {folder / config.token_file}: that is no token; it is one line of plain text"
            )
            raise ConfigError(message)
        headers["Authorization"] = f"Bearer {token}"
    return lambda data: urllib.request.Request(url, data=data, headers=headers, method="POST")  # noqa: S310 - checked


@contextmanager
def opened(config: WebhookConfig, *, folder: Path, tell: Callable[[str], None]) -> Iterator[Webhook]:
    """Give a webhook for the time of the block; files of the configuration are relative to `folder`.

    Raises:
        ConfigError: a file can't be read, or what stands in it is no URL.

    """
    hook = Webhook(poster(config, folder=folder), config, tell)
    try:
        yield hook
    finally:
        hook.close()


def _check_url(url: str) -> None:
    """Refuse what would be found out at the first alarm. Raises ConfigError."""
    problem = None
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problem = "its URL must be like https://host/path"
        elif parts.username is not None or parts.password is not None:
            problem = "its URL must have no login; a token_file or headers can have one"
        elif not (url.isascii() and url.isprintable() and " " not in url) or parts.port == 0:
            problem = "its URL has a character or a port that can't be; percent-encode what is not ASCII"
        else:
            # As it is asked for when a connection is made; a part of a name that is too long is found here.
            parts.hostname.encode("idna")
    except ValueError:
        problem = "its URL is none: see its host and its port"
    if problem is not None:
        message = f"alarms.toml: webhook: {problem}"
        raise ConfigError(message)


def _read(folder: Path, key: str, name: str | None) -> str:
    path = folder / (name or "")
    try:
        return path.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        message = f"webhook.{key}: {path}: {reason}"
        raise ConfigError(message) from error


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow none."""
        del req, fp, code, msg, headers, newurl


_OPENER = urllib.request.build_opener(_NoRedirection)
