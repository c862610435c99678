"""The page's HTTP: JSON, server-sent events and static files. Text from boards goes out as text in JSON, never as HTML.

Unknown is null, never 0. Times are Unix seconds. Errors are `{"error": line}` with 4xx or 5xx.

`GET /api/fleet` → `{"fleet","now","listening_since","connected":bool,"reason":str|null,"writable":bool,"tiles":[Tile],
    "rollouts":[RolloutRow],"rollouts_problem":str|null,"garbage":n}`

`GET /api/stream[?board=NAME]`, server-sent events:
    `fleet`     all of `/api/fleet`: first, and again whenever the browser was too slow to be told one by one; whoever
                shows a board then asks for it anew
    `tiles`     `{"now","tiles":[only changed ones],"gone":[names],"garbage":n}`, twice a second to every two
    `rollouts`  `{"rollouts":[RolloutRow],"problem":str|null}` on change
    `source`    `{"connected":bool,"reason":str|null}` on change
    `board`     with `?board=`, at most 4 a second: `{"points":[Point],"predictions":[Prediction],"thumbnail":…|null,
                "events":[Event],"detail":BoardDetail without series}`; points and predictions are the new ones, oldest
                first; with more than 50 of them since the last time the oldest are left out

Tile: `{"board","known":bool (fleet.toml has it),"labels":{k:v},
    "status":"online|offline|silent|failing|unknown|<state of the deployment under way>","seen":unix|null,
    "model":"digits-1.0.0"|null,"name","version","digest","runtime":"tflite-runtime 2.14.0"|null,"threads":n|null,
    "delegate":{"requested","active","reason"}|null,"p50_ms","p99_ms","rate","errors","dropped" (of the last window),
    "temperature_c","throttled","top":{"label","score"}|null,"low_confidence_share",
    "deployment":{"state","title","detail"}|null (the last one),"problem":str|null,"hurt":number,"why":str|null}`

`GET /api/boards/NAME` → BoardDetail `{"tile","facts","agent_version","uptime_s","inference","source","outbox_rows",
    "outbox_dropped","missing","duplicates","card":ModelCard|null,
    "deployments":[{"deployment","time","state","title","detail","error"}] (newest first),
    "benchmark":{"time","request","position","total","model","runtime","threads","runs","p50_ms","p90_ms","p99_ms"
        (of the invokes),"valid","reasons":[…],"error"}|null (the last configuration that somebody asked to measure),
    "events":[{"time","level","kind","message"}] (newest first),"predictions":[Prediction] (newest first),
    "thumbnail":{"jpeg" (base64),"item","top","time"}|null,"labels":[{"label","count","share","mean_score"}],
    "reference":{"labels":[{"label","share"}],"scores":[10 shares],"samples","data"}|null,"scores":[10 counts],
    "stages":{stage:{"count","p50_ms","p90_ms","p99_ms"}},
    "series":{"time":[…],"rate":[…],"temperature_c":[…],"p50_ms":{stage:[…]},"p99_ms":{stage:[…]}}}`;
    labels, scores and stages are of the bundle that serves, since we listen
Prediction: `{"item","time","top":[{"label","score"}],"total_ms","stages_ms":{stage:ms}}`
Point: one column of series: `{"time","rate","temperature_c","p50_ms":{stage:v},"p99_ms":{stage:v}}`

`GET /api/models` → `{"models":[{"name","versions":[{"version","digest","release","scheme","size_bytes",
    "boards":[names],"count","errors","stages":{as a board's},"labels":[as a board's],"scores":[10 counts],
    "low_confidence_share","accuracy","float_accuracy","samples","reference":{as a board's}|null,
    "drift":{"labels":{"psi","chance"}|null,"confidence":{"psi","chance"}|null}}]}]}`, the newest version first

`GET /api/rollouts` → `{"rollouts":[RolloutRow],"problem":str|null}`, newest first
RolloutRow: `{"id","title","status","wave" (counted from 1; null once all have passed),
    "waves":[{"index" (from 1),"size","boards":n,"serving","failed","pending",
    "state":"waiting|approval|pushing|soaking|passed|failed","verdict":str|null,"approval":bool (still needs one)}],
    "counts":{phase:n},"started","reason"}`
`GET /api/rollouts/ID` → RolloutRow and `{"digest","release","selector","by","conductor":str|null,"phase","soak_until",
    "policy":{…,"gates":{limit:…}},"boards":[{"board","wave","phase","reason","attempts","bytes_sent","again_at"}],
    "left_out":[{"board","disposition","reason"}],"verdicts":[{"wave":n|null,"ok","reason","boards","misbehaved"}],
    "gates":[{"wave","gate","board","ok","figure","value","limit"}],"audit":[{"time","by","action","detail"}]}`

`GET /api/benchmarks` → `{"runs":[{"id","created","name","tool","boards":[…],"models":[…],"cells"}]}`, newest first
`GET /api/benchmarks/compare?base=&new=[&across_boards=1][&across_models=1]` (ids or names) → `{"base","new","heading",
    "tolerance","alpha","counts":{outcome:n},"rows":[{"board","model","configuration","outcome","broken","incomparable",
    "notes":[…],"figures":[{"metric":"p50|p90|p99|qps|rss","base","new" (ns, per second, bytes),"ratio","low","high",
    "p_value","outcome","note"}],"cdf":{"base":[{"ms","share"}]|null,"new":…}|null}]}`; outcomes are
    `regression|broken|improvement|unchanged|uncertain|incomparable`

With a token (`Authorization: Bearer …`, JSON bodies): `GET /api/token` → 204 or 401;
`POST /api/rollouts/ID/{approve,pause,resume,abort,rollback}` `{"confirm":"<id>"[,"wave":n from 1]}` →
    `{"rollout","said","conductor":str|null,"message"}`;
`POST /api/boards/NAME/benchmark` `{"confirm":"<board>"}` → 202 `{"board","request"}`.
401 no or wrong token, 403 no token was given to the server or a foreign page asks, 404 no such thing, 409 it makes no
sense now, 422 not confirmed, 503 broker or journal away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tflotilla.host.dashboards.web import access
from tflotilla.host.dashboards.web.stream import MOST_STREAMS, EventStream
from tflotilla.host.rollouts.deciding.people import Word
from tflotilla.shared.contract.errors import BrokerError, ConflictError, InputError, TflotillaError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tflotilla.host.dashboards.web.site import Site

STATIC = Path(__file__).parent / "static"
_MOST_BODY_BYTES = 4096
_WORDS: tuple[Word, ...] = get_args(Word)
_SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_STATUS: dict[type[TflotillaError], int] = {ConflictError: 409, UsageError: 404, BrokerError: 503, InputError: 503}


def build(site: Site, *, names: Collection[str], static: Path = STATIC) -> ASGIApp:
    """Return the application; `names` are the hosts that it may be asked under, see `access.own_names`."""

    @contextlib.asynccontextmanager
    async def living(_app: Starlette) -> AsyncIterator[None]:
        beat = asyncio.create_task(site.live())
        yield
        site.hub.close()
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat

    pages = _Pages(site)
    routes: list[Route | Mount] = [
        Route("/api/fleet", pages.fleet),
        Route("/api/stream", pages.stream),
        Route("/api/boards/{board}", pages.board),
        Route("/api/boards/{board}/benchmark", pages.benchmark_board, methods=["POST"]),
        Route("/api/models", pages.models),
        Route("/api/rollouts", pages.rollouts),
        Route("/api/rollouts/{rollout}", pages.rollout),
        Route("/api/rollouts/{rollout}/{word}", pages.say, methods=["POST"]),
        Route("/api/benchmarks", pages.benchmarks),
        Route("/api/benchmarks/compare", pages.compare),
        Route("/api/token", pages.token),
    ]
    if static.is_dir():
        routes.append(Mount("/", StaticFiles(directory=static, html=True)))
    app = Starlette(
        routes=routes,
        lifespan=living,
        exception_handlers={
            HTTPException: _refused,
            TflotillaError: _failed,
            Exception: _bug,
        },
    )
    return _Guard(app, names)


class _Guard:
    """Refuses requests under foreign names, and puts the headers on that keep a page to itself."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                headers += [(name.encode(), value.encode()) for name, value in _SAFE.items()]
                if not any(name == b"cache-control" for name, _value in headers):
                    # Files are asked for again, and mostly found unchanged; figures are never kept.
                    kept = b"no-store" if scope["path"].startswith("/api/") else b"no-cache"
                    headers.append((b"cache-control", kept))
                message = {**message, "headers": headers}
            await send(message)

        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), None)
        if access.is_ours(host, self._names):
            await self._app(scope, receive, guarded)
            return
        refusal = _error(421, "this page is not served under that name; ask for it by address, or see --name")
        await refusal(scope, receive, guarded)


class _Pages:
    """The routes; each returns a document that somebody else made."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def fleet(self, _request: Request) -> Response:
        await self._site.refresh()
        return _json(self._site.fleet_document())

    async def stream(self, request: Request) -> ASGIApp | Response:
        board = request.query_params.get("board")
        if board is not None and not self._site.now.has(board):
            await self._site.refresh()
        if board is not None and not self._site.now.has(board):
            return _error(404, f"no board {board[:80]!r}")
        if self._site.hub.streams >= MOST_STREAMS:
            return _error(503, f"{MOST_STREAMS} browsers look already")
        await self._site.refresh()
        return EventStream(self._site.hub, board=board)

    async def board(self, request: Request) -> Response:
        await self._site.refresh()
        board = request.path_params["board"]
        await self._site.recall(board)
        document = self._site.now.board_document(board)
        return _error(404, f"no board {board[:80]!r}") if document is None else _json(document)

    async def models(self, _request: Request) -> Response:
        await self._site.refresh()
        return _json(await asyncio.to_thread(self._site.now.models_document))

    async def rollouts(self, _request: Request) -> Response:
        await self._site.rollouts.refresh()
        return _json({"rollouts": self._site.rollouts.rows(), "problem": self._site.rollouts.problem})

    async def rollout(self, request: Request) -> Response:
        return _json(await self._site.rollouts.detail(request.path_params["rollout"]))

    async def benchmarks(self, _request: Request) -> Response:
        return _json(await self._site.benchmarks.entries())

    async def compare(self, request: Request) -> Response:
        asked = request.query_params
        try:
            found = await self._site.benchmarks.compare(
                asked.get("base", ""),
                asked.get("new", ""),
                across_boards=asked.get("across_boards") == "1",
                across_models=asked.get("across_models") == "1",
            )
        except InputError as error:
            return _error(404, str(error))
        return _json(found)

    async def token(self, request: Request) -> Response:
        refusal = await self._refusal(request)
        return Response(status_code=204) if refusal is None else refusal

    async def say(self, request: Request) -> Response:
        rollout, word = request.path_params["rollout"], request.path_params["word"]
        if word not in _WORDS:
            return _error(404, f"{word[:40]!r} can't be said of a rollout; {', '.join(_WORDS)} can")
        body = await self._confirmed(request, rollout)
        if isinstance(body, Response):
            return body
        wave = body.get("wave")
        if wave is not None and (not isinstance(wave, int) or isinstance(wave, bool) or wave < 1):
            return _error(422, "wave must be a number, counted from 1")
        said = await self._site.rollouts.say(
            rollout, cast("Word", word), sender=_sender(request), wave=None if wave is None else wave - 1
        )
        await self._site.beat_rollouts()
        return _json(said)

    async def benchmark_board(self, request: Request) -> Response:
        board = request.path_params["board"]
        body = await self._confirmed(request, board)
        if isinstance(body, Response):
            return body
        await self._site.refresh()
        if not self._site.now.has(board):
            return _error(404, f"no board {board[:80]!r}")
        return _json({"board": board, "request": await self._site.benchmark(board)}, status=202)

    async def _confirmed(self, request: Request, wanted: str) -> dict[str, Any] | Response:
        """Return the body of a request that may do something, or why it may not."""
        refusal = await self._refusal(request)
        if refusal is not None:
            return refusal
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error(415, "send JSON")
        taken = bytearray()
        async for piece in request.stream():
            taken += piece
            if len(taken) > _MOST_BODY_BYTES:
                return _error(413, "that is too long")
        try:
            body = json.loads(taken)
        except (ValueError, RecursionError):
            return _error(400, "that is not JSON")
        if not isinstance(body, dict) or body.get("confirm") != wanted:
            return _error(422, f'not confirmed: send {{"confirm": "{wanted}"}}')
        return body

    async def _refusal(self, request: Request) -> Response | None:
        if self._site.token is None:
            return _error(403, "this page is read-only; start it with --token-file")
        if not access.same_site(request.headers.get("origin"), request.headers.get("host")):
            return _error(403, "a page from elsewhere may do nothing here")
        if not await self._site.token.allows(request.headers.get("authorization")):
            refused = _error(401, "no token, or not the right one")
            refused.headers["www-authenticate"] = "Bearer"
            return refused
        return None


def _sender(request: Request) -> str:
    return request.client.host if request.client is not None else "?"


def _json(document: Any, *, status: int = 200) -> Response:  # noqa: ANN401 - any JSON document
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/json")


def _error(status: int, line: str) -> Response:
    return _json({"error": line}, status=status)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    answer = _error(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _failed(_request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    return _error(status, str(error))


async def _bug(_request: Request, error: Exception) -> Response:
    return _error(500, f"a bug of tflotilla: {type(error).__name__}")
