"""The board's end of `shared.contract.session`: `tflotilla-agent session`, spoken over stdin and stdout.

Rules it keeps: nothing that no allowed signer signed is written to the disk; a transfer that breaks off is kept; a
frame that makes no sense is answered with one line and the session goes on as long as the stream can be followed; the
supervisor decides about deployments, this process only carries words. It starts fast: stdlib only, no asyncio, and what
few sessions need is imported by those (`session_start` is what begins one).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

from tflotilla.device import __version__, control
from tflotilla.device.store import Store
from tflotilla.shared.contract import digest, errors
from tflotilla.shared.contract.errors import BoardError, ConfigError, ContractError, TflotillaError
from tflotilla.shared.contract.session import (
    MAX_FRAME_BYTES,
    SCHEMA,
    Hello,
    MissingBlob,
    Reply,
    Request,
    request_from_line,
    to_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.device.home import Home
    from tflotilla.device.incoming import Incoming
    from tflotilla.shared.contract.board import ServedBundle
    from tflotilla.shared.contract.manifest import Manifest

_PIECE_BYTES = 256 << 10
_TRANSFERS = frozenset({"offer", "manifest", "blob", "samples"})
#: A chunk's length in decimal digits, with the newline.
_LENGTH_LINE_BYTES = 20


class _StreamLostError(Exception):
    """The host hung up, or sent what can't be followed: the session ends here. Never leaves this module."""


def run(home: Home, requests: BinaryIO, replies: BinaryIO, *, first: bytes | None = None) -> int:
    """Serve one session to its end; return the exit code.

    A configuration that can't be read is answered with an error frame in place of the hello. `first` is a request that
    was read already, by somebody who said hello.
    """
    try:
        return _Session(home, requests, replies, first).run()
    except BrokenPipeError:
        # The host went away. Descriptor 1 must not be flushed into the broken pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), replies.fileno())
        return 0


def carry_on(home: Home, requests: BinaryIO, replies: BinaryIO, *, first: bytes) -> bytes | None:
    """Serve the transfers of a session that began elsewhere, beginning with `first`.

    Returns:
        The first request that is something else, as it came; None when the session is over.

    """
    return _Session(home, requests, replies, first).transfers()


class _Session:
    def __init__(self, home: Home, requests: BinaryIO, replies: BinaryIO, first: bytes | None) -> None:
        self._home = home
        self._store = Store(home)
        self._requests = requests
        self._replies = replies
        self._first = first
        #: The request that was read last, as it came.
        self._line = b""
        #: Digest and size of the blobs that a signed manifest of this session names.
        self._awaited: dict[str, int] = {}

    def run(self) -> int:
        try:
            if self._first is None:
                self._say(self._hello())
        except ConfigError as error:
            # Reported rather than passed over: an agent with this file would not come up again.
            serving = "; the agent runs on with what it read before" if control.is_running(self._home) else ""
            self._say(_refusal(ConfigError(f"{error}{serving}")))
            return error.exit_code
        except TflotillaError as error:
            self._say(_refusal(error))
            return error.exit_code
        try:
            while (request := self._next_request()) is not None:
                if request.verb == "bye":
                    self._say(Reply())
                    return 0
                self._answer(request)
        except _StreamLostError:
            pass
        return 0

    def transfers(self) -> bytes | None:
        with contextlib.suppress(_StreamLostError):
            while (request := self._next_request()) is not None:
                if request.verb == "bye":
                    self._say(Reply())
                    return None
                if request.verb not in _TRANSFERS:
                    return self._line
                self._answer(request)
        return None

    def _hello(self) -> Hello:
        from tflotilla.device import config, facts

        settings = config.load(self._home.config)
        return Hello(
            schema=SCHEMA,
            agent_version=__version__,
            board=settings.board,
            fleet=settings.fleet,
            facts=facts.read(self._home.path),
            running=control.is_running(self._home),
            serving=self._served(self._store.current()),
            previous=self._served(self._store.previous()),
        )

    def _served(self, bundle: str | None) -> ServedBundle | None:
        return None if bundle is None else self._store.describe(bundle)

    def _next_request(self) -> Request | None:
        """Return the next request that makes sense; answer those that don't. None at the end of the stream."""
        while True:
            line, self._first = self._first or b"", None
            if not line.endswith(b"\n"):
                line += self._requests.readline(MAX_FRAME_BYTES + 1 - len(line))
            if not line.endswith(b"\n"):
                if len(line) > MAX_FRAME_BYTES:
                    self._say(_refusal(ContractError(f"session request: a frame of more than {MAX_FRAME_BYTES} bytes")))
                return None
            if not line.strip():
                continue
            self._line = line
            try:
                return request_from_line(line)
            except ContractError as error:
                self._say(_refusal(error))

    def _answer(self, request: Request) -> None:
        try:
            if request.verb == "offer":
                self._say(self._offer(request))
            elif request.verb == "manifest":
                self._say(self._manifest(request))
            elif request.verb == "blob":
                self._say(self._blob(request))
            elif request.verb == "samples":
                self._say(self._samples(request))
            else:
                self._relay(request)
        except TflotillaError as error:
            self._say(_refusal(error))

    def _offer(self, request: Request) -> Reply:
        if request.bundle is None and request.sha256 is not None:
            from tflotilla.device.samples import Samples

            return Reply(present=Samples(self._store).has(request.sha256))
        return self._store.offered(_given(request.bundle, "bundle"))

    def _manifest(self, request: Request) -> Reply:
        from tflotilla.device import admission

        data = _decoded(_given(request.manifest, "manifest"), "manifest")
        signature = _decoded(request.signature or "", "signature")
        manifest = admission.check_signature(data, signature, self._home.allowed_signers)
        self._home.make()
        bundle = digest.of_bytes(data)
        if request.purpose != "benchmark":
            # What is only measured may be older than what serves; the installer asks again before it switches.
            admission.check_release(manifest, bundle, self._store)
        self._awaited.update({entry.sha256: entry.size for entry in manifest.files.values()})
        if self._store.has_bundle(bundle):
            return Reply(missing=())
        needed = sum(blob.size - blob.offset for blob in self._missing(manifest))
        self._store.require_space(needed + len(data) + len(signature))
        self._store.stage(data, signature)
        # Looked up again: until it was staged, a blob that nothing named could be collected.
        return Reply(missing=self._missing(manifest))

    def _missing(self, manifest: Manifest) -> tuple[MissingBlob, ...]:
        bases = self._store.bases(manifest)
        return tuple(
            MissingBlob(sha256=sha256, size=size, offset=self._store.partial_bytes(sha256, size), bases=bases[sha256])
            for sha256, size in self._store.missing(manifest)
        )

    def _blob(self, request: Request) -> Reply:
        sha256, size = _given(request.sha256, "sha256"), request.size

        def receive() -> Incoming:
            if self._awaited.get(sha256) != size or size is None:
                message = f"blob {sha256[:12]!r} of {size} bytes is in no manifest of this session; send that first"
                raise ContractError(message)
            if (request.base is None) != (request.pieces is None):
                raise ContractError("session request: 'base' and 'pieces' go together")
            base = None
            if request.base is not None and request.pieces is not None:
                base = self._store.base(request.base, request.pieces, size)
            return self._store.receive(sha256, size, request.offset or 0, base=base)

        return self._stored(sha256, receive)

    def _samples(self, request: Request) -> Reply:
        sha256 = _given(request.sha256, "sha256")
        self._home.make()
        from tflotilla.device.samples import Samples

        return self._stored(sha256, lambda: Samples(self._store).receive(sha256, request.size or 0))

    def _stored(self, sha256: str, receive: Callable[[], Incoming]) -> Reply:
        failure: TflotillaError | None = None
        incoming: Incoming | None = None
        try:
            incoming = receive()
        except TflotillaError as error:
            failure = error
        # A refused blob is read to its end all the same: the host has sent it already.
        while (length := self._chunk_length()) > 0:
            while length > 0:
                piece = self._requests.read(min(length, _PIECE_BYTES))
                if not piece:
                    raise _StreamLostError
                length -= len(piece)
                if incoming is not None and failure is None:
                    try:
                        incoming.write(piece)
                    except TflotillaError as error:
                        failure = error
        if failure is not None or incoming is None:
            raise failure or BoardError("blob: not stored")
        incoming.finish()
        return Reply(stored=sha256)

    def _chunk_length(self) -> int:
        line = self._requests.readline(_LENGTH_LINE_BYTES)
        if not line:
            raise _StreamLostError
        digits = line.strip()
        if not line.endswith(b"\n") or not digits.isdigit() or int(digits) > MAX_FRAME_BYTES:
            # Where the next frame begins can't be told any more.
            self._say(_refusal(ContractError(f"blob: {line[:20]!r} is not the length of a chunk; the session ends")))
            raise _StreamLostError
        return int(digits)

    def _relay(self, request: Request) -> None:
        deployment = request.deployment or os.urandom(8).hex()
        if request.verb == "deploy":
            asked = control.ControlRequest(
                verb="deploy",
                bundle=_given(request.bundle, "bundle"),
                deployment=deployment,
                inference=request.inference,
                shadow=request.shadow,
            )
        elif request.verb == "rollback":
            asked = control.ControlRequest(verb="rollback", bundle=request.bundle, deployment=deployment)
        elif request.verb == "benchmark":
            if request.benchmark is None:
                raise ContractError("session request: key 'benchmark' is missing")
            asked = control.ControlRequest(verb="benchmark", benchmark=request.benchmark)
        else:
            asked = control.ControlRequest(verb="state")
        for reply in control.ask(self._home, asked):
            self._say(reply)

    def _say(self, frame: Hello | Reply) -> None:
        self._replies.write(to_line(frame))
        self._replies.flush()


def _given(value: str | None, key: str) -> str:
    if value is None:
        message = f"session request: key {key!r} is missing"
        raise ContractError(message)
    return value


def _decoded(text: str, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"session request.{key}: not base64 ({error})"
        raise ContractError(message) from error


def _refusal(error: TflotillaError) -> Reply:
    wire = errors.to_wire(error)
    return Reply(error=wire["error"], message=wire["message"])
