"""A board's benchmarks: one at a time, told cell by cell, there again after a restart; the disk may fail."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.device import homes_made
from tests.device.benchmark_agents import agent, kinds, measure, measure_at_once, request, until
from tflotilla.device.disk import RealDisk
from tflotilla.device.store import Store
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import (
    BenchmarkCell,
    BenchmarkReport,
    BenchmarkRequest,
    Configuration,
    Method,
    ServingDuring,
)
from tflotilla.shared.contract.errors import BoardError, ConflictError, ContractError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from tflotilla.device.home import Home
    from tflotilla.device.reports import CellSpec
    from tflotilla.shared.contract.board import RuntimeOffer


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = homes_made.make(tmp_path / "home", homes_made.config(1))
    homes_made.install(made)
    return made


def run(work: Awaitable[None]) -> None:
    async def body() -> None:
        await work

    asyncio.run(body())


def test_each_cell_reports_its_own_failure_and_the_others_go_on(home: Home) -> None:
    async def story() -> None:
        async with agent(home, measure=measure) as running:
            asked = request("crashes", "hangs", "measures", "lacks memory", "measures")
            heard = await running.follow(asked)

            assert kinds(heard) == ["crashed", "hung", "figures", "out_of_memory", "figures"]
            assert [report.position for report in heard] == [1, 2, 3, 4, 5]
            assert {report.request for report in heard} == {"r"}
            assert running.reports == heard
            assert [report.last for report in heard] == [False] * 4 + [True]
            assert running.board.settled == 5  # before each cell

    run(story())


def test_a_report_says_what_was_measured_where(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            (report,) = await running.follow(request(method=Method(seed=7)))

            assert report.method == Method(seed=7)
            assert report.identity is not None
            assert report.identity.bundle == running.board.bundle
            assert report.identity.title == "tiny-1.0.0"

    run(story())


def test_a_cell_says_how_the_serving_model_fared_meanwhile(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            (report,) = await running.follow(request())

            assert report.cell is not None
            assert report.cell.serving == ServingDuring(
                results=10,
                errors=1,
                p50_ns=1000,
                p99_ns=3000,
                before_p50_ns=500,
                before_p99_ns=3000,
                restarts=1,
            )

    run(story())


def test_a_second_benchmark_meanwhile_is_refused_and_told_which_one_runs(home: Home) -> None:
    async def story() -> None:
        async with agent(home, measure=measure) as running:
            running.benchmarks.ask(request("waits", name="first"))
            running.benchmarks.ask(request(name="second"))

            (refused,) = running.reports
            assert refused.request == "second"
            assert refused.error == "benchmark 'first' is running on this board; try again when it is done"
            with pytest.raises(ConflictError, match="benchmark 'first' is running"):
                await running.follow(request(name="third"))

            (home.bundles / "go").touch()
            await running.told(2)
            assert kinds(running.reports[1:]) == ["figures"]

    run(story())


def test_who_has_heard_the_last_report_may_ask_for_more_at_once(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            ids = ["one", "two", "three"]
            asked: list[str] = []

            def ask_on(report: BenchmarkReport) -> None:
                if report.last and len(asked) + 1 < len(ids):
                    asked.append(ids[len(asked) + 1])
                    running.benchmarks.ask(request("measures", "measures", name=asked[-1]))

            await running.benchmarks.follow(request("measures", "measures", name="one"), ask_on)
            await running.told(4)

            assert [report.error for report in running.reports] == [None] * 4
            assert [report.request for report in running.reports] == ["one", "one", "two", "two"]

    run(story())


def test_asked_again_it_tells_its_story_from_the_beginning(home: Home) -> None:
    async def story() -> None:
        async with agent(home, measure=measure) as running:
            asked = request("measures", "waits", "measures")
            running.benchmarks.ask(asked)
            await running.told(1)

            again = asyncio.create_task(running.follow(asked))
            await asyncio.sleep(0)
            (home.bundles / "go").touch()
            heard = await again

            assert [report.position for report in heard] == [1, 2, 3]
            assert await running.follow(asked) == heard
            running.benchmarks.ask(asked)
            assert running.reports == [*heard, *heard]

    run(story())


def test_an_id_that_asked_for_something_else_before_is_refused(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            await running.follow(request())
            with pytest.raises(ConflictError, match="asked for something else before"):
                await running.follow(request(method=Method(seed=1)))

    run(story())


def test_whoever_asked_may_go_away(home: Home) -> None:
    async def story() -> None:
        async with agent(home, measure=measure) as running:
            asking = asyncio.create_task(running.follow(request("waits", "measures")))
            await until(lambda: running.benchmarks.running is not None)
            asking.cancel()
            (home.bundles / "go").touch()

            assert kinds(await running.told(2)) == ["figures", "figures"]

    run(story())


def test_a_restart_in_the_middle_costs_that_cell_alone(home: Home) -> None:
    asked = request("measures", "waits", "measures")

    async def story() -> None:
        async with agent(home, measure=measure) as running:
            running.benchmarks.ask(asked)
            await running.told(1)
            await until(lambda: '"began":1' in home.benchmark.read_text())
        async with agent(home, measure=measure) as running:
            assert kinds(await running.told(2)) == ["interrupted", "figures"]
            assert kinds(await running.follow(asked)) == ["figures", "interrupted", "figures"]
        async with agent(home) as running:
            assert kinds(await running.follow(asked)) == ["figures", "interrupted", "figures"]
            assert running.reports == []

    run(story())


def test_who_asks_again_before_the_board_serves_hears_the_rest_when_it_does(home: Home) -> None:
    asked = request("measures", "waits", "measures")

    async def story() -> None:
        async with agent(home, measure=measure) as running:
            running.benchmarks.ask(asked)
            await running.told(1)
            await until(lambda: '"began":1' in home.benchmark.read_text())
        async with agent(home, measure=measure, serves=False) as running:
            following = asyncio.create_task(running.follow(asked))
            with pytest.raises(ConflictError, match="benchmark 'r' is running"):
                await running.follow(request(name="another"))
            assert not following.done()

            running.benchmarks.go_on()
            assert kinds(await following) == ["figures", "interrupted", "figures"]

    run(story())


def test_half_a_line_at_the_end_of_the_journal_is_ignored(home: Home) -> None:
    asked = request("measures", "measures")

    async def story() -> None:
        async with agent(home) as running:
            await running.follow(asked)
        whole = home.benchmark.read_bytes()
        home.benchmark.write_bytes(whole[: whole.rindex(b'"cell":{') + 30])
        async with agent(home) as running:
            await running.told(1)
            assert kinds(await running.follow(asked)) == ["figures", "interrupted"]
        for line in home.benchmark.read_bytes().splitlines():
            json.loads(line)

    run(story())


def test_a_report_that_a_kill_may_have_lost_is_told_once_more(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            heard = await running.follow(request("measures", "measures"))
        lines = home.benchmark.read_bytes().splitlines(keepends=True)
        home.benchmark.write_bytes(b"".join(lines[:-1]))
        async with agent(home) as running:
            assert await running.told(1) == heard[1:]
            await until(lambda: running.benchmarks.running is None)
        async with agent(home) as running:
            assert running.benchmarks.running is None
            assert running.reports == []

    run(story())


@pytest.mark.parametrize("garbage", [b"", b"\n", b"{}\n", b"\xff\xfe\n", b'{"request":'])
def test_a_journal_that_can_not_be_read_is_none(home: Home, garbage: bytes) -> None:
    home.benchmark.write_bytes(garbage)

    async def story() -> None:
        async with agent(home) as running:
            assert running.benchmarks.running is None
            assert kinds(await running.follow(request())) == ["figures"]

    run(story())


class FullDisk(RealDisk):
    """No file can grow."""

    def create(self, path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path), len(data))

    def append(self, path: Path, data: bytes) -> None:
        self.create(path, data)


def test_a_full_disk_is_reported_once_and_measured_on_all_the_same(home: Home) -> None:
    async def story() -> None:
        async with agent(home, disk=FullDisk()) as running:
            assert kinds(await running.follow(request("measures", "measures"))) == ["figures", "figures"]
            (trouble,) = running.troubles
            assert "can't be written (No space left on device): a restart would lose this benchmark" in trouble

    run(story())


def test_an_old_journal_is_not_taken_for_one_that_could_not_be_written(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            await running.follow(request(name="old"))
        async with agent(home, disk=FullDisk()) as running:
            await running.follow(request(name="new"))
        assert not home.benchmark.exists()

    run(story())


def test_a_cancelled_benchmark_ends_with_its_cell(home: Home) -> None:
    async def story() -> None:
        async with agent(home, measure=measure) as running:
            asked = request("waits", "measures")
            following = asyncio.create_task(running.follow(asked))
            await until(lambda: running.benchmarks.running is not None)
            running.benchmarks.ask(replace(asked, cancel=True))

            heard = await following
            assert kinds(heard) == ["interrupted", "the benchmark was cancelled"]
            assert heard[-1].last
            assert running.benchmarks.running is None
            assert kinds(await running.follow(request(name="next"))) == ["figures"]

    run(story())


def test_what_does_not_run_can_not_be_cancelled(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            with pytest.raises(ConflictError, match="no benchmark 'r' is running on this board"):
                await running.follow(request(cancel=True))
            running.benchmarks.ask(request(cancel=True))
            assert kinds(running.reports) == ["no benchmark 'r' is running on this board"]

    run(story())


@pytest.mark.parametrize(
    ("bundle", "kind", "words"),
    [
        ("ab" * 32, BoardError, "bundle abababababab is not on this board"),
        ("../../etc", ContractError, "is not a SHA-256 digest"),
    ],
)
def test_a_bundle_that_is_not_here_is_an_error_that_is_not_remembered(
    home: Home, bundle: str, kind: type[Exception], words: str
) -> None:
    async def story() -> None:
        async with agent(home) as running:
            with pytest.raises(kind, match=words):
                await running.follow(request(bundle=bundle))
            assert words in (running.reports[-1].error or "")
            assert kinds(await running.follow(request())) == ["figures"]

    run(story())


def test_samples_that_were_not_sent_are_an_error(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            with pytest.raises(BoardError, match="samples abababababab are not on this board; send them first"):
                await running.follow(request(method=Method(inputs="samples", samples="ab" * 32)))

    run(story())


def test_a_board_without_a_bundle_says_so(tmp_path: Path) -> None:
    home = homes_made.make(tmp_path / "home", homes_made.config(1))

    async def story() -> None:
        async with agent(home) as running:
            with pytest.raises(BoardError, match="no bundle serves on this board; deploy one first"):
                await running.follow(request())

    run(story())


def test_a_guest_is_kept_while_it_is_measured_and_removed_afterwards(home: Home) -> None:
    guest = homes_made.install(home, version="2.0.0", serving=False)
    current = Store(home).current()

    async def story() -> None:
        async with agent(home, measure=measure, linger_s=0.0) as running:
            running.benchmarks.ask(request("waits", bundle=guest))
            await until(home.benchmark.exists)
            running.benchmarks._store.collect((current,) if current else ())
            assert home.bundle(guest).is_dir()

            (home.bundles / "go").touch()
            await running.told(1)
            await until(lambda: not home.bundle(guest).exists())
            assert Store(home).current() == current

    run(story())


def test_a_guest_that_is_being_deployed_meanwhile_stays(home: Home) -> None:
    guest = homes_made.install(home, version="2.0.0", serving=False)

    async def story() -> None:
        async with agent(home, linger_s=0.0) as running:
            running.board.being_deployed = guest
            await running.follow(request(bundle=guest))
            tidying = running.benchmarks._tidying
            assert tidying is not None
            await asyncio.wait([tidying])
            assert home.bundle(guest).is_dir()

    run(story())


def test_samples_are_removed_when_nobody_needs_them(home: Home) -> None:
    data = b"samples"
    name = digest.of_bytes(data)
    home.samples.mkdir()
    asked = request(method=Method(inputs="samples", samples=name))

    async def story() -> None:
        (home.samples / name).write_bytes(data)
        specs: list[CellSpec] = []

        async def look(spec: CellSpec, runtime: RuntimeOffer | None) -> BenchmarkCell:
            specs.append(spec)
            return await measure_at_once(spec, runtime)

        async with agent(home, measure=look, linger_s=0.0) as running:
            # What lay there before this agent began was nobody's.
            assert list(home.samples.iterdir()) == []
            (home.samples / name).write_bytes(data)
            await running.follow(asked)
            assert [spec.samples for spec in specs] == [str(home.samples / name)]
            await until(lambda: not list(home.samples.iterdir()))

    run(story())


def test_without_configurations_the_one_that_serves_is_measured(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            (report,) = await running.follow(BenchmarkRequest(request="r"))

            assert report.cell is not None
            assert report.cell.configuration == Configuration(inference=InferenceConfig(runtime="ai-edge-litert"))

    run(story())


def test_a_damaged_home_is_an_error_and_no_end(home: Home) -> None:
    async def story() -> None:
        async with agent(home) as running:
            shutil.rmtree(home.bundles)
            with pytest.raises(BoardError):
                await running.follow(request())
            assert running.benchmarks.running is None

    run(story())
