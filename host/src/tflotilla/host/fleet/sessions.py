"""The host's end of `shared.contract.session`: one channel, the board speaks first.

Rules it keeps: what a shell's start-up files print before the hello is passed over; an error of the board comes out as
the error it was there, with the board's name in front; every wait has an end.
What it does NOT do: decide what to send (see `push`), reconnect.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import shlex
import time
from typing import IO, TYPE_CHECKING, Literal

from tflotilla.host.fleet.lines.duplex import PACKET_BYTES
from tflotilla.host.fleet.transfer.parcels import Parcel
from tflotilla.shared.contract import codec, errors, layout, session
from tflotilla.shared.contract.errors import BoardError, ContractError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.host.fleet.inventory.fleet import Install
    from tflotilla.host.fleet.lines.duplex import Duplex
    from tflotilla.host.fleet.lines.ssh import Link
    from tflotilla.host.fleet.lines.throttle import Throttle
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest
    from tflotilla.shared.contract.deployment import DeploymentStatus
    from tflotilla.shared.contract.messages import State
    from tflotilla.shared.contract.session import Hello, MissingBlob, Reply, Request

#: Exit status of our command where no agent is installed.
_NOT_INSTALLED = 96
_HELLO_TIMEOUT_S = 60.0
_REPLY_TIMEOUT_S = 120.0
#: Without a word from a board that probes and confirms: more than any sane health policy.
_STATUS_TIMEOUT_S = 900.0
#: A board that measures says every 15 s that it still does.
_SIGN_OF_LIFE_TIMEOUT_S = 60.0
_NOISE_LINES = 200


def agent_command(install: Install, arguments: str) -> str:
    """Return the shell command that runs the board's agent, wherever it is installed.

    `arguments` is our own text, never a user's.
    """
    # A login shell may be anything; what it is given is one quoted word for sh.
    homes = {
        "user": f'"$HOME"/{layout.USER_HOME}',
        "system": layout.SYSTEM_HOME,
        "auto": f'{layout.SYSTEM_HOME} "$HOME"/{layout.USER_HOME}',
    }[install]
    script = (
        f'for h in {homes}; do a="$h"/{layout.LAUNCHER}; [ -x "$a" ] && exec "$a" {arguments}; done; '
        f"exit {_NOT_INSTALLED}"
    )
    return f"exec sh -c {shlex.quote(script)}"


class Session:
    """An open session; `hello` is the board's first frame."""

    def __init__(self, link: Link, duplex: Duplex) -> None:
        """Read the hello.

        Raises:
            BoardError: no agent is installed, or it can't start.
            ContractError: the agent speaks another version of the contract.
            UnreachableError: the line broke.

        """
        self._link = link
        self._duplex = duplex
        self._manifest: Request | None = None
        #: What the bodies of files share with other transfers; None is without limit.
        self.limit: Throttle | None = None
        self.hello = self._greeting()

    def offer(self, bundle: str) -> Reply:
        """Ask whether a bundle is there, and whether it serves."""
        return self._ask(session.Request(verb="offer", bundle=bundle))

    def manifest(
        self, manifest: bytes, signature: bytes, *, purpose: Literal["benchmark"] | None = None
    ) -> tuple[MissingBlob, ...]:
        """Send manifest and signature; return what the board lacks.

        Raises:
            VerificationError: the board doesn't accept the signature.
            ConflictError: the release is not newer than what it had, and it is not only to be measured.

        """
        self._manifest = session.Request(
            verb="manifest",
            manifest=base64.b64encode(manifest).decode(),
            signature=base64.b64encode(signature).decode(),
            purpose=purpose,
        )
        return self.missing_again()

    def missing_again(self) -> tuple[MissingBlob, ...]:
        """Ask once more what the board lacks of the manifest that was sent last. Raises as `manifest`."""
        if self._manifest is None:
            return ()
        return self._ask(self._manifest).missing or ()

    def blob(self, missing: MissingBlob, parcel: Parcel, *, on_bytes: Callable[[int], None]) -> None:
        """Send a file from where the board has it; `on_bytes` hears how many bytes of it have gone.

        Raises:
            VerificationError: what arrived is not what the digest says.
            BoardError: no space, or the base of a difference is not there any more.

        """
        request = session.Request(
            verb="blob",
            sha256=missing.sha256,
            size=missing.size,
            offset=missing.offset,
            base=parcel.base,
            pieces=parcel.pieces,
        )
        self._stream(request, parcel, missing.offset, on_bytes)

    def has_samples(self, sha256: str) -> bool:
        """Whether the samples of a benchmark are there; they stay as long as if they had been sent now."""
        return self._ask(session.Request(verb="offer", sha256=sha256)).present is True

    def samples(self, sha256: str, size: int, source: IO[bytes], *, on_bytes: Callable[[int], None]) -> None:
        """Send the samples of a benchmark, which the board keeps until that is over.

        Raises:
            VerificationError: what arrived is not what the digest says.
            BoardError: no space.

        """

        def read(at: int, count: int) -> bytes:
            source.seek(at)
            return source.read(count)

        self._stream(session.Request(verb="samples", sha256=sha256, size=size), Parcel(size, read), 0, on_bytes)

    def _stream(self, request: Request, parcel: Parcel, offset: int, on_bytes: Callable[[int], None]) -> None:
        # One write with the first chunk: on a fast line every packet counts.
        frame = session.to_line(request)
        gone = offset
        for data, sent in parcel.stream(offset):
            frame += b"%d\n" % len(data) + data
            if sent == parcel.size:
                frame += b"0\n"
            # With a limit, what one packet takes is waited for before it goes.
            step = len(frame) if self.limit is None else PACKET_BYTES
            for start in range(0, len(frame), step):
                part = frame[start : start + step]
                if self.limit is not None:
                    self.limit.take(len(part))
                heard = functools.partial(_report, on_bytes, gone, (sent - gone) / len(frame), start)
                self._duplex.write(part, on_sent=heard)
            gone = sent
            frame = b""
        self._reply(_REPLY_TIMEOUT_S)

    def deploy(
        self, bundle: str, deployment: str, inference: InferenceConfig | None = None, *, shadow: int = 0
    ) -> Iterator[DeploymentStatus]:
        """Start a deployment, or follow the one with that id; yield its statuses up to the last.

        `inference` is how the bundle is to run, as tuning found out; None is what agent.toml says. On `shadow` inputs
        it is tried beside the one that serves.
        """
        return self._statuses(
            session.Request(
                verb="deploy", bundle=bundle, deployment=deployment, inference=inference, shadow=shadow or None
            )
        )

    def rollback(self, deployment: str, *, bundle: str | None = None) -> Iterator[DeploymentStatus]:
        """Bring the previous bundle back; yield the statuses. Raises ConflictError when there is none.

        With `bundle`, only where that one serves.
        """
        return self._statuses(session.Request(verb="rollback", deployment=deployment, bundle=bundle))

    def benchmark(self, request: BenchmarkRequest, *, patience_s: float) -> Iterator[BenchmarkReport]:
        """Have a benchmark run, or follow the one with that id; yield its reports, `patience_s` apart at most.

        Raises:
            ConflictError: another one runs on this board.
            UnreachableError: the patience is over, or the line broke: a board that measures gives signs of life.

        """
        self._send(session.Request(verb="benchmark", benchmark=request))
        until = time.monotonic() + patience_s
        while True:
            reply = self._reply(max(0.0, min(until - time.monotonic(), _SIGN_OF_LIFE_TIMEOUT_S)))
            if reply.benchmark is not None:
                yield reply.benchmark
                until = time.monotonic() + patience_s
            if reply.done:
                return

    def state(self) -> State:
        """Return what the board is doing. Raises BoardError when its agent doesn't run."""
        reply = self._ask(session.Request(verb="state"))
        if reply.state is None:
            message = f"{self._link.board}: the agent didn't say its state"
            raise ContractError(message)
        return reply.state

    def bye(self) -> None:
        """End the session; what fails now doesn't matter any more."""
        with contextlib.suppress(errors.TflotillaError):
            self._send(session.Request(verb="bye"))
            self._duplex.finish(timeout_s=_REPLY_TIMEOUT_S)

    def _statuses(self, request: Request) -> Iterator[DeploymentStatus]:
        self._send(request)
        while True:
            reply = self._reply(_STATUS_TIMEOUT_S)
            if reply.status is not None:
                yield reply.status
            if reply.done:
                return

    def _ask(self, request: Request) -> Reply:
        self._send(request)
        return self._reply(_REPLY_TIMEOUT_S)

    def _send(self, request: Request) -> None:
        self._duplex.write(session.to_line(request))

    def _line(self, timeout_s: float) -> bytes:
        line = self._duplex.readline(timeout_s=timeout_s, limit_bytes=session.MAX_FRAME_BYTES)
        if not line.endswith(b"\n"):
            raise self._ended()
        return line

    def _reply(self, timeout_s: float) -> Reply:
        line = self._line(timeout_s)
        with self._named():
            reply = session.reply_from_line(line)
        if reply.error is not None:
            raise self._error(reply.error, reply.message)
        return reply

    def _greeting(self) -> Hello:
        for _number in range(_NOISE_LINES):
            line = self._line(_HELLO_TIMEOUT_S)
            if not line.startswith(b"{"):
                continue
            document = codec.parse_json(line, f"{self._link.board}: session hello")
            if isinstance(document, dict) and isinstance(document.get("error"), str):
                raise self._error(document["error"], str(document.get("message")))
            if not isinstance(document, dict) or document.get("schema") != session.SCHEMA:
                message = (
                    f"{self._link.board}: its agent speaks another version of the contract; "
                    f"`tflotilla board bootstrap {self._link.board}` updates it"
                )
                raise ContractError(message)
            with self._named():
                return session.hello_from_line(line)
        message = f"{self._link.board}: its shell prints before the agent can speak; clean its start-up files"
        raise BoardError(message)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ContractError as error:
            message = f"{self._link.board}: {error}"
            raise ContractError(message) from error

    def _error(self, kind: str, message: str | None) -> errors.TflotillaError:
        return errors.from_wire(kind, f"{self._link.board}: {message or 'no reason given'}")

    def _ended(self) -> errors.TflotillaError:
        done = self._duplex.finish(timeout_s=_REPLY_TIMEOUT_S)
        board = self._link.board
        if done.exit_status == _NOT_INSTALLED:
            return BoardError(f"{board} has no agent yet; `tflotilla board bootstrap {board}` installs it")
        if done.exit_status < 0:
            # By a signal: the board's out-of-memory killer, a shutdown. Nothing is wrong with the agent's installation.
            return UnreachableError(f"{board}: the agent's session was killed on the board")
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:] or "it said nothing"
        return BoardError(
            f"{board}: the agent's session ended with status {done.exit_status}: {said}; "
            f"`tflotilla board bootstrap {board}` repairs an agent"
        )


def _report(on_bytes: Callable[[int], None], gone: int, share: float, start: int, sent: int) -> None:
    on_bytes(gone + int(share * (start + sent)))


@contextlib.contextmanager
def open_session(link: Link, install: Install) -> Iterator[Session]:
    """Start a session on an open connection. Raises what `Session` raises."""
    with link.open(agent_command(install, "session")) as duplex:
        yield Session(link, duplex)
