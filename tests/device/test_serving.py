"""The keeper with real workers and probes: what the installer may rely on, and what becomes of a worker that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests import brokers, models_made
from tests.device import homes_made
from tests.device.children import RUNTIMES
from tflotilla.device import config, facts
from tflotilla.device.backoff import Backoff
from tflotilla.device.choice import Choice
from tflotilla.device.serving import Hooks, Keeper
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.errors import BoardError, ProbeError
from tflotilla.shared.contract.manifest import HealthPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tflotilla.device.home import Home


class Bench:
    """A keeper, and everything it told."""

    def __init__(self, home: Home, *, runtime: str | None = None, slack_s: float = 5.0) -> None:
        home.config.write_text(homes_made.config(1, runtime=runtime))
        self.home = home
        self.settings = config.load(home.config)
        self.reports: list[tuple[str, dict[str, Any], str]] = []
        self.complaints: list[str] = []
        self.ends: list[str] = []
        self.untuned: list[str] = []
        self.workers: list[str] = []
        hooks = Hooks(
            on_report=lambda channel, body, bundle: self.reports.append((channel, json.loads(body), bundle)),
            on_complaint=self.complaints.append,
            on_end=self.ends.append,
            on_change=lambda: self.workers.append(self.keeper.worker),
            on_untuned=self.untuned.append,
        )
        self.keeper = Keeper(
            Store(home), self.settings, hooks, backoff=Backoff(first_s=0.05, limit_s=0.2), slack_s=slack_s
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + brokers.PATIENCE_S
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, (self.workers, self.ends)
            await asyncio.sleep(0.01)

    def kill_worker(self) -> None:
        assert self.keeper.worker_pid is not None
        os.kill(self.keeper.worker_pid, signal.SIGKILL)

    def live(self, story: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            try:
                await story()
            finally:
                await self.keeper.stop()

        asyncio.run(whole())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return homes_made.make(tmp_path / "home", "")


@pytest.fixture
def bench(home: Home) -> Bench:
    return Bench(home)


def test_to_serve_returns_when_the_first_inference_is_done(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)

        assert bench.keeper.worker == "running"
        assert bench.keeper.ready is not None
        assert bench.keeper.ready.runtime.name == RUNTIMES[0]
        assert bench.keeper.ready.first_inference_ns > 0
        await bench.until(lambda: {channel for channel, _, _ in bench.reports} == {"metrics", "predictions"})
        assert {of for _, _, of in bench.reports} == {bundle}

    bench.live(story)


def test_a_shadow_answers_beside_the_worker_that_goes_on(home: Home, bench: Bench) -> None:
    champion = homes_made.install(home)
    challenger = homes_made.install(
        home, model=models_made.read("tiny_classifier_shifted"), version="2.0.0", serving=False
    )

    async def story() -> None:
        await bench.keeper.serve(champion, None)
        worker = bench.keeper.worker_pid
        chosen = Choice(runtime=bench.keeper.ready.runtime) if bench.keeper.ready else None
        assert chosen is not None

        report = await bench.keeper.shadow(home.bundle(champion), home.bundle(challenger), chosen, 8)

        assert (report.inputs, report.agreed, report.reason) == (8, 0, None)
        assert (bench.keeper.worker, bench.keeper.worker_pid, bench.ends) == ("running", worker, [])

    bench.live(story)


def test_a_shadow_of_what_does_not_serve_yet_is_refused(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)
    chosen = Choice(runtime=facts.runtimes()[0])

    async def story() -> None:
        with pytest.raises(ProbeError, match="has not begun"):
            await bench.keeper.shadow(home.bundle(bundle), home.bundle(bundle), chosen, 8)

    bench.live(story)


def test_nothing_to_serve_is_a_state_of_its_own(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)
        await bench.keeper.serve(None, None)

        assert (bench.keeper.worker, bench.keeper.bundle, bench.keeper.ready) == ("none", None, None)
        assert bench.keeper.worker_pid is None

    bench.live(story)


def test_the_last_window_of_a_worker_that_is_replaced_is_not_lost(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)
        await bench.until(lambda: len(bench.reports) >= 2)
        before = len(bench.reports)
        await bench.keeper.stop()

        assert len(bench.reports) > before
        assert bench.ends == []

    bench.live(story)


def test_a_bundle_whose_worker_can_not_come_up_is_told_and_tried_again(home: Home, bench: Bench) -> None:
    bad = homes_made.install(home, model=b"no model")
    good = homes_made.install(home, version="2.0.0")

    async def story() -> None:
        with pytest.raises(ProbeError) as caught:
            await bench.keeper.serve(bad, None)
        assert "\n" not in str(caught.value)
        assert bench.keeper.worker == "failing"
        assert bench.keeper.problem == str(caught.value)
        await bench.until(lambda: len(bench.ends) >= 2)

        await bench.keeper.serve(good, None)
        assert bench.workers[-1] == "running"
        assert bench.keeper.ready is not None

    bench.live(story)


def test_one_crash_is_a_restart_and_several_are_failing(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)
        bench.kill_worker()
        await bench.until(lambda: len(bench.ends) == 1 and bench.keeper.ready is not None)
        assert "failing" not in bench.workers
        assert "crashed (SIGKILL)" in bench.ends[0]

        for count in (2, 3):
            bench.kill_worker()
            await bench.until(lambda count=count: len(bench.ends) == count and bench.keeper.ready is not None)  # type: ignore[misc]
        assert bench.keeper.worker == "failing"
        assert "crashed (SIGKILL)" in (bench.keeper.problem or "")

    bench.live(story)


def test_an_observation_counts_results_and_measures_them(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)
        seen = await bench.keeper.observe(0.5)

        assert seen.results > 0
        assert seen.errors == 0
        assert seen.crashes == 0
        assert seen.pace is not None
        assert seen.champion is None

    bench.live(story)


def test_a_candidate_is_compared_with_what_served_before_it(home: Home, bench: Bench) -> None:
    old, new = homes_made.install(home), homes_made.install(home, version="2.0.0")

    async def story() -> None:
        await bench.keeper.serve(old, None)
        await bench.until(lambda: sum(channel == "metrics" for channel, _, _ in bench.reports) >= 2)
        await bench.keeper.serve(new, None)

        assert (await bench.keeper.observe(0.3)).champion is not None

    bench.live(story)


def test_a_crash_during_an_observation_is_counted(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)
        asyncio.get_running_loop().call_later(0.05, bench.kill_worker)

        assert (await bench.keeper.observe(1.0)).crashes >= 1

    bench.live(story)


def test_a_worker_that_hangs_is_silent_not_without_input(home: Home) -> None:
    bench = Bench(home, slack_s=0.1)
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)
        assert bench.keeper.worker_pid is not None
        os.kill(bench.keeper.worker_pid, signal.SIGSTOP)
        # What it had written before is heard first.
        await bench.keeper.observe(0.0)

        assert (await bench.keeper.observe(0.1)).silent_s is not None

    bench.live(story)


def test_a_short_window_is_waited_out_until_the_worker_has_reported(home: Home, bench: Bench) -> None:
    """The confirm window may be shorter than the reporting window; seeing nothing would prove nothing."""
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)

        assert (await bench.keeper.observe(0.0)).results > 0

    bench.live(story)


def test_auto_probes_every_runtime_that_is_installed(home: Home) -> None:
    bench = Bench(home, runtime="auto")
    bundle = homes_made.install(home)

    async def story() -> None:
        found = await bench.keeper.probe(home.bundle(bundle), bench.settings.inference)

        assert [report.runtime for report in found] == list(facts.runtimes())
        assert all(report.ok for report in found), found

    bench.live(story)


def test_auto_without_a_choice_makes_one_and_remembers_it(home: Home) -> None:
    if len(RUNTIMES) == 1:
        pytest.skip("there is nothing to choose: one runtime is installed")
    bench = Bench(home, runtime="auto")
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, None)

        assert bench.keeper.ready is not None
        assert Store(home).choice(bundle) == Choice(runtime=bench.keeper.ready.runtime)

    bench.live(story)


def test_auto_serves_with_what_the_probe_chose(home: Home) -> None:
    bench = Bench(home, runtime="auto")
    bundle = homes_made.install(home)
    chosen = facts.runtimes()[-1]

    async def story() -> None:
        await bench.keeper.serve(bundle, Choice(runtime=chosen))

        assert bench.keeper.ready is not None
        assert bench.keeper.ready.runtime == chosen

    bench.live(story)


def test_a_choice_that_is_not_installed_any_more_is_no_choice(home: Home) -> None:
    bench = Bench(home, runtime="auto")
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, Choice(runtime=replace(facts.runtimes()[0], version="0.0.1")))

        assert bench.keeper.ready is not None
        assert bench.keeper.ready.runtime in facts.runtimes()

    bench.live(story)


def test_it_is_served_as_it_was_tuned(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)
    tuned = _tuned()

    async def story() -> None:
        await bench.keeper.serve(bundle, tuned)

        assert bench.keeper.inference == tuned.inference
        assert bench.keeper.ready is not None
        assert bench.keeper.ready.runtime == tuned.runtime
        assert bench.keeper.worker_pid is not None
        assert os.sched_getaffinity(bench.keeper.worker_pid) == {facts.processors()[-1]}
        assert bench.untuned == []

    bench.live(story)


def test_after_another_kernel_it_is_served_as_agent_toml_says(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home)

    async def story() -> None:
        await bench.keeper.serve(bundle, replace(_tuned(), kernel="2.6.32"))

        assert bench.keeper.inference == replace(bench.settings.inference, runtime=runtime_name(RUNTIMES[0]))
        (said,) = bench.untuned
        assert "not as tuned: it was found on kernel 2.6.32, now it is" in said

    bench.live(story)


def runtime_name(name: str) -> Literal["tflite-runtime", "ai-edge-litert"]:
    return "tflite-runtime" if name == "tflite-runtime" else "ai-edge-litert"


def _tuned() -> Choice:
    name = runtime_name(RUNTIMES[-1])
    runtime = facts.offer(name)
    assert runtime is not None
    inference = InferenceConfig(runtime=name, xnnpack=False, affinity=facts.processors()[-1:])
    return Choice(runtime=runtime, inference=inference, kernel=facts.kernel())


def test_a_probe_that_takes_too_long_is_a_report_with_the_limit(home: Home, bench: Bench) -> None:
    bundle = homes_made.install(home, health=HealthPolicy(probe_timeout_s=0.01))

    async def story() -> None:
        (report,) = await bench.keeper.probe(home.bundle(bundle), bench.settings.inference)

        assert not report.ok
        assert report.reason == "the probe process gave no answer within 0.01 s"
        assert report.runtime.name == RUNTIMES[0]

    bench.live(story)


def test_a_bundle_that_is_gone_is_the_boards_trouble(home: Home, bench: Bench) -> None:
    async def story() -> None:
        with pytest.raises(BoardError, match=r"manifest\.json can't be read"):
            await bench.keeper.probe(home.path / "nowhere", bench.settings.inference)

    bench.live(story)
