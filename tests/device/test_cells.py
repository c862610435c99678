"""What becomes of a cell whose process misbehaves: one word, one sentence, and never silence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tests.device import cells_made, fake_cell
from tflotilla.device import cells
from tflotilla.device.cells import Death
from tflotilla.device.children import Child
from tflotilla.device.reports import CellSpec
from tflotilla.shared.contract.benchmark import BenchmarkCell, CellError, Failure, Method

if TYPE_CHECKING:
    from pathlib import Path


def measure(
    folder: Path, behaviour: str, *, delegate: str | None = None, method: Method | None = None
) -> BenchmarkCell:
    spec = CellSpec(
        bundle=str(folder / "bundle"),
        configuration=fake_cell.configuration(behaviour, delegate=delegate),
        method=method or Method(),
    )
    return asyncio.run(cells.measure(spec, facts_made.LITERT, start=fake_cell.start))


def error(cell: BenchmarkCell) -> CellError:
    assert cell.error is not None
    assert cell.measurement is None
    assert "\n" not in cell.error.message
    return cell.error


def test_figures_are_passed_on_as_the_child_wrote_them(tmp_path: Path) -> None:
    assert measure(tmp_path, "measures") == cells_made.measured(fake_cell.configuration("measures"))


def test_a_process_that_dies_after_its_figures_has_given_them(tmp_path: Path) -> None:
    assert measure(tmp_path, "crashes when done").error is None


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        ("crashes", "crashed", "the benchmark process crashed (SIGSEGV) (while loading)"),
        ("hangs", "hung", "no answer for 0.2 s while warming up; it was ended"),
        ("lacks memory", "out_of_memory", "std::bad_alloc"),
        ("is killed", "crashed", "the benchmark process crashed (SIGKILL)"),
        ("ends early", "crashed", "ended with code 5; its last words: nothing to be done"),
        ("babbles", "crashed", "wrote what can't be understood"),
        ("speaks of something else", "crashed", "a line of unknown kind b'M'"),
        ("finds the disk full", "disk", "No space left on device"),
    ],
)
def test_a_process_that_gives_no_figures_is_a_cell_with_the_reason(
    tmp_path: Path, behaviour: str, kind: Failure, words: str
) -> None:
    found = error(measure(tmp_path, behaviour))

    assert kind == found.kind
    assert words in found.message


@pytest.mark.parametrize("behaviour", ["hangs in its delegate", "crashes in its delegate"])
def test_what_happens_while_a_delegate_is_loaded_is_the_delegates_doing(tmp_path: Path, behaviour: str) -> None:
    found = error(measure(tmp_path, behaviour, delegate="libfast.so"))

    assert found.kind == "delegate"
    assert "while loading the delegate" in found.message


def test_a_process_that_outgrows_its_limit_is_ended(tmp_path: Path) -> None:
    found = error(measure(tmp_path, "outgrows its limit", method=Method(max_rss_mib=1.0)))

    assert found.kind == "out_of_memory"
    assert "and 1 MiB were allowed" in found.message


def test_a_process_that_can_not_be_started_is_a_cell_with_the_reason() -> None:
    async def start(spec: CellSpec) -> Child:
        return await Child.launch(("/nowhere/python3",), "benchmark", spec)

    spec = CellSpec(bundle="/nowhere", configuration=cells_made.configuration(), method=Method())

    found = error(asyncio.run(cells.measure(spec, None, start=start)))

    assert "can't be started: No such file or directory" in found.message


DEATH = Death(doing="measuring", code=-9, account="the benchmark process crashed (SIGKILL)")


def test_a_kill_is_blamed_on_memory_only_when_the_kernel_says_so() -> None:
    assert cells.blame(DEATH).kind == "crashed"
    assert cells.blame(replace(DEATH, oom_kills=1)).kind == "out_of_memory"
    assert cells.blame(replace(DEATH, oom_kills=1, code=-11)).kind == "crashed"


def test_a_silence_is_no_death_by_memory() -> None:
    assert cells.blame(replace(DEATH, oom_kills=1, silent_s=3.0)).kind == "hung"


def test_a_cell_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []

    async def start(spec: CellSpec) -> Child:
        child = await fake_cell.start(spec)
        pids.append(child.pid)
        return child

    async def cancel() -> None:
        spec = CellSpec(
            bundle=str(tmp_path / "bundle"), configuration=fake_cell.configuration("waits"), method=Method()
        )
        task = asyncio.create_task(cells.measure(spec, None, start=start))
        while not pids:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(cancel())

    assert cells.rss_bytes(pids[0]) is None
