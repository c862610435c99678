"""What the page's server answers, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.host.dashboards.web import feed, served, stories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.host.dashboards.web.feed import Made

BEARER = {"authorization": f"Bearer {feed.TOKEN}"}
RUNNING = f"/api/rollouts/{stories.RUNNING}"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Made, httpx.Client]]:
    with (
        served.page(tmp_path_factory.mktemp("page")) as (made, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield made, client


@pytest.fixture
def client(page: tuple[Made, httpx.Client]) -> httpx.Client:
    return page[1]


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        served.page(tmp_path_factory.mktemp("read-only"), boards=4, token=None) as (_made, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


def got(client: httpx.Client, path: str) -> Any:  # noqa: ANN401 - any JSON
    """Return what is answered with 200."""
    answer = client.get(path)
    assert 200 == answer.status_code, answer.text
    return answer.json()


def test_the_fleet_is_told_with_its_rollouts(client: httpx.Client) -> None:
    fleet = got(client, "/api/fleet")

    assert ("greenhouse", True, True) == (fleet["fleet"], fleet["connected"], fleet["writable"])
    assert ["pi-001", "pi-002", "pi-003", "pi-004", "pi-005", "pi-006", "pi-new", "stranger"] == sorted(
        tile["board"] for tile in fleet["tiles"]
    )
    assert [stories.RUNNING, stories.HALTED, stories.DONE] == [row["id"] for row in fleet["rollouts"]]


def test_a_board_is_told_with_its_curves(client: httpx.Client) -> None:
    board = got(client, "/api/boards/pi-001")

    assert ["decode", "preprocess", "invoke", "postprocess", "total"] == list(board["series"]["p99_ms"])
    assert 20 == board["stages"]["total"]["count"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/boards/pi-999",
        "/api/boards/%2e%2e%2fetc",
        "/api/stream?board=pi-999",
        "/api/rollouts/nothing",
        "/api/benchmarks/compare?base=nothing&new=main",
        "/api/benchmarks/compare",
        "/api/nothing",
    ],
)
def test_what_there_is_not_is_said_in_one_line(client: httpx.Client, path: str) -> None:
    answer = client.get(path)

    assert (404, 1) == (answer.status_code, len(answer.json()["error"].splitlines()))


def test_models_are_told_by_version(client: httpx.Client) -> None:
    (model,) = got(client, "/api/models")["models"]

    assert ["2.0.0", "1.0.0"] == [version["version"] for version in model["versions"]]


def test_a_rollout_is_told_with_waves_boards_gates_and_who_did_what(client: httpx.Client) -> None:
    halted = got(client, f"/api/rollouts/{stories.HALTED}")

    assert ("rolled_back", "failed") == (halted["status"], halted["waves"][0]["state"])
    assert ("latency", "pi-001", False, 6.3, 1.5) == tuple(
        halted["gates"][0][key] for key in ("gate", "board", "ok", "value", "limit")
    )
    assert ("undone", 1) == (halted["boards"][0]["phase"], halted["boards"][0]["wave"])
    assert ["start"] == [entry["action"] for entry in halted["audit"]]


def test_two_benchmarks_are_held_against_each_other(client: httpx.Client) -> None:
    runs = got(client, "/api/benchmarks")["runs"]
    found = got(client, "/api/benchmarks/compare?base=main&new=candidate")

    assert ["candidate", "nightly", "main"] == [run["name"] for run in runs]
    assert {"regression": 2, "unchanged": 2} == found["counts"]
    slower = next(row for row in found["rows"] if row["outcome"] == "regression")
    assert 1.31 == pytest.approx(slower["figures"][0]["ratio"], abs=0.02)
    assert (200, 1.0) == (len(slower["cdf"]["new"]), slower["cdf"]["new"][-1]["share"])


def test_the_page_keeps_to_itself(client: httpx.Client) -> None:
    headers = client.get("/api/fleet").headers

    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ("nosniff", "no-referrer", "same-origin", "no-store") == (
        headers["x-content-type-options"],
        headers["referrer-policy"],
        headers["cross-origin-resource-policy"],
        headers["cache-control"],
    )
    assert "set-cookie" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_who_asks_under_a_foreign_name_gets_nothing(client: httpx.Client, host: str) -> None:
    answer = client.get("/api/fleet", headers={"host": host})

    assert 421 == answer.status_code
    assert "greenhouse" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "LOCALHOST:8080", "127.0.0.1:9", "[::1]:8080"])
def test_who_asks_by_address_or_through_a_tunnel_is_answered(client: httpx.Client, host: str) -> None:
    assert 200 == client.get("/api/fleet", headers={"host": host}).status_code


def test_without_a_token_file_nothing_can_be_done(read_only: httpx.Client) -> None:
    answers = [
        read_only.get("/api/token", headers=BEARER),
        read_only.post(f"{RUNNING}/approve", json={"confirm": stories.RUNNING}, headers=BEARER),
        read_only.post("/api/boards/pi-001/benchmark", json={"confirm": "pi-001"}, headers=BEARER),
    ]

    assert [403, 403, 403] == [answer.status_code for answer in answers]
    assert got(read_only, "/api/fleet")["writable"] is False


@pytest.mark.parametrize(
    "said", ["", "Bearer", "Bearer wrong", "Basic Zm9v", f"Bearer {feed.TOKEN}x", f"Bearer {'é' * 9}"]
)
def test_a_wrong_token_does_nothing(client: httpx.Client, said: str) -> None:
    headers = {b"authorization": said.encode()} if said else {}
    answers = [
        client.get("/api/token", headers=headers),
        client.post(f"{RUNNING}/abort", json={"confirm": stories.RUNNING}, headers=headers),
    ]

    assert [401, 401] == [answer.status_code for answer in answers]
    assert "running" == got(client, RUNNING)["status"]


def test_the_right_token_is_known(client: httpx.Client) -> None:
    assert 204 == client.get("/api/token", headers=BEARER).status_code


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[" * 4000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"confirm": "another"}', 422),
        (b'{"confirm": "' + b"x" * 5000 + b'"}', 413),
        (b'{"confirm": "%s", "wave": "2"}' % stories.RUNNING.encode(), 422),
        (b'{"confirm": "%s", "wave": 0}' % stories.RUNNING.encode(), 422),
    ],
)
def test_what_is_not_confirmed_is_not_done(client: httpx.Client, body: bytes, status: int) -> None:
    headers = BEARER | {"content-type": "application/json"}
    answer = client.post(f"{RUNNING}/abort", content=body, headers=headers)

    assert status == answer.status_code, answer.text
    assert "running" == got(client, RUNNING)["status"]


def test_a_form_of_another_page_does_nothing(client: httpx.Client) -> None:
    form = client.post(f"{RUNNING}/abort", content=b"{}", headers=BEARER | {"content-type": "text/plain"})
    foreign = client.post(
        f"{RUNNING}/abort", json={"confirm": stories.RUNNING}, headers=BEARER | {"origin": "http://evil.example"}
    )

    assert (415, 403) == (form.status_code, foreign.status_code)
    assert "running" == got(client, RUNNING)["status"]


def test_what_makes_no_sense_now_is_refused(client: httpx.Client) -> None:
    def said(rollout: str, word: str, **more: int) -> tuple[int, str]:
        path = f"/api/rollouts/{rollout}/{word}"
        answer = client.post(path, json={"confirm": rollout, **more}, headers=BEARER)
        return answer.status_code, answer.json()["error"]

    assert (409, f"{stories.DONE} is succeeded already") == said(stories.DONE, "abort")
    assert (409, f"{stories.HALTED} is rolled back already") == said(stories.HALTED, "rollback")
    assert (409, f"{stories.RUNNING}: wave 3 doesn't wait for approval") == said(stories.RUNNING, "approve", wave=3)
    assert (404, f"{stories.RUNNING} has 3 waves, there is no wave 9") == said(stories.RUNNING, "approve", wave=9)
    assert 404 == said(stories.RUNNING, "retry")[0]
    assert 404 == client.get(f"{RUNNING}/abort").status_code


def test_a_wave_is_approved_and_the_rollout_paused_and_resumed(tmp_path: Any) -> None:  # noqa: ANN401
    with (
        served.page(tmp_path, boards=12) as (_made, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=BEARER) as client,
    ):
        answers = [
            client.post(f"{RUNNING}/{word}", json={"confirm": stories.RUNNING})
            for word in ("approve", "pause", "resume")
        ]
        found = got(client, RUNNING)

    assert [200, 200, 200] == [answer.status_code for answer in answers], [answer.text for answer in answers]
    assert "nobody conducts it now" in answers[0].json()["message"]
    assert (False, "running") == (found["waves"][1]["approval"], found["status"])
    assert ["approve", "pause", "resume"] == [entry["action"] for entry in found["audit"]][-3:]
    assert {"through": "dashboard", "from": "127.0.0.1"} == found["audit"][-1]["detail"]


def test_a_board_is_asked_to_measure(page: tuple[Made, httpx.Client]) -> None:
    made, client = page
    answer = client.post("/api/boards/pi-001/benchmark", json={"confirm": "pi-001"}, headers=BEARER)
    stranger = client.post("/api/boards/pi-999/benchmark", json={"confirm": "pi-999"}, headers=BEARER)

    assert (202, {"board": "pi-001", "request": "dashboard-1"}, 404) == (
        answer.status_code,
        answer.json(),
        stranger.status_code,
    )
    assert ["pi-001"] == made.asked


def test_files_beside_the_page_are_not_served(client: httpx.Client) -> None:
    paths = ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd", "/js/%2e%2e/%2e%2e/site.py"]

    assert {404} == {client.get(path).status_code for path in paths}
