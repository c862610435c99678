"""What tuning found is kept by model, type of board and runtime, and counts only where nothing has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tests.host.benchmarks import measured
from tflotilla.host.fleet import tuned
from tflotilla.host.fleet.tuned import Advice, BoardType, Record
from tflotilla.shared.contract.agent_config import DelegateConfig, InferenceConfig
from tflotilla.shared.contract.benchmark import Configuration
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SHA, OTHER = "ab" * 32, "cd" * 32
FACTS = measured.identity("pi-1").facts
LITERT = facts_made.LITERT
TFLITE = RuntimeOffer(name="tflite-runtime", version="2.14.0")
INFERENCE = InferenceConfig(runtime="ai-edge-litert", num_threads=3, xnnpack=True, affinity=(1, 2, 3))
RECORD = Record(
    model_sha256=SHA,
    bundle="ef" * 32,
    title="birds-1.0.0",
    board_type=tuned.type_of(FACTS),
    runtime=LITERT,
    kernel=FACTS.kernel,
    configuration=Configuration(inference=INFERENCE),
    objective="p99",
    value_ns=12.5e6,
    pick=True,
    runs=662,
    valid=True,
    tried=24,
    board="pi-1",
    seed=7,
    created=1.8e9,
)
#: The best with the other runtime, of the same search.
SLOWER = replace(
    RECORD,
    runtime=TFLITE,
    value_ns=20e6,
    pick=False,
    configuration=Configuration(inference=InferenceConfig(runtime="tflite-runtime", num_threads=4)),
)


def test_the_type_of_a_board_knows_no_revision() -> None:
    assert tuned.type_of(FACTS) == BoardType(machine="Raspberry Pi 4 Model B", arch="aarch64", cores=4)
    assert str(tuned.type_of(FACTS)) == "Raspberry Pi 4 Model B, aarch64, 4 cores"
    assert str(tuned.type_of(replace(FACTS, model=None, arch="x86_64", cores=1))) == "x86_64, 1 core"


def test_a_record_is_read_as_it_was_kept(tmp_path: Path) -> None:
    delegate = DelegateConfig(library="libthing.so", options={"cores": "2"})
    record = replace(RECORD, configuration=Configuration(inference=replace(INFERENCE, delegate=delegate)))

    tuned.save(tmp_path, [record, replace(record, model_sha256=OTHER)])

    assert tuned.load(tmp_path, SHA) == (record,)


def test_a_new_search_replaces_what_the_old_one_found(tmp_path: Path) -> None:
    later = replace(RECORD, created=1.9e9, value_ns=11e6)
    tuned.save(tmp_path, [RECORD])
    tuned.save(tmp_path, [later])

    assert tuned.load(tmp_path, SHA) == (later,)


def test_each_runtime_and_each_kernel_has_a_record_of_its_own(tmp_path: Path) -> None:
    elsewhere = replace(RECORD, kernel="6.12.1", created=1.9e9)
    tuned.save(tmp_path, [SLOWER, RECORD, elsewhere])

    # The latest search first, and what is faster of one search.
    assert tuned.load(tmp_path, SHA) == (elsewhere, RECORD, SLOWER)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": "x"}', "\0"])
def test_what_can_not_be_read_is_no_record(tmp_path: Path, text: str) -> None:
    (path,) = tuned.save(tmp_path, [RECORD])
    path.write_text(text)
    said: list[str] = []

    assert tuned.load(tmp_path, SHA, tell=said.append) == ()
    assert [str(path) in line for line in said] == [True]


def test_a_record_that_contradicts_itself_is_none(tmp_path: Path) -> None:
    (path,) = tuned.save(tmp_path, [RECORD])
    path.write_text(path.read_text().replace('"runtime":"ai-edge-litert"', '"runtime":"tflite-runtime"'))

    assert tuned.load(tmp_path) == ()


def test_a_record_of_a_newer_tflotilla_is_none(tmp_path: Path) -> None:
    tuned.save(tmp_path, [replace(RECORD, schema=2)])

    assert tuned.load(tmp_path, SHA) == ()


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "tuned").write_text("a file")

    with pytest.raises(InputError, match="tuned can't be made"):
        tuned.save(tmp_path, [RECORD])


class TestAdvice:
    def test_a_board_of_the_same_type_runs_it_so(self) -> None:
        other = replace(FACTS, hostname="pi-9", model="Raspberry Pi 4 Model B Rev 1.1", ram_bytes=1 << 30)

        assert tuned.advise([RECORD], other, "pi-9") == Advice(
            inference=INFERENCE,
            said="as tuned on pi-1: ai-edge-litert==2.3.0, 3 threads, XNNPACK on, processor 1,2,3",
            insist=True,
        )

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            (replace(FACTS, kernel="6.12.1"), "found on kernel 6.1.0-rpi7-rpi-v8, now it is 6.12.1"),
            (
                replace(FACTS, runtimes=(RuntimeOffer(name="ai-edge-litert", version="2.4.0"),)),
                "found with ai-edge-litert==2.3.0, now it is ai-edge-litert==2.4.0",
            ),
            (replace(FACTS, runtimes=(TFLITE,)), "found with ai-edge-litert==2.3.0, now it is not installed"),
        ],
    )
    def test_after_a_change_it_says_which(self, facts: object, reason: str) -> None:
        advice = tuned.advise([RECORD], facts, "pi-1")  # type: ignore[arg-type]

        assert advice == Advice(inference=None, said=f"not as tuned: {reason}; `tflotilla tune pi-1` does it anew")

    @pytest.mark.parametrize("change", [{"cores": 2}, {"arch": "armv7l"}, {"model": "Raspberry Pi 5 Model B Rev 1.0"}])
    def test_another_type_has_nothing_to_do_with_it(self, change: dict[str, object]) -> None:
        assert tuned.advise([RECORD], replace(FACTS, **change), "pi-1") == Advice(inference=None)  # type: ignore[arg-type]

    def test_a_runtime_that_agent_toml_fixes_stays(self) -> None:
        facts = replace(FACTS, runtimes=(LITERT, TFLITE))

        assert tuned.advise([RECORD, SLOWER], facts, "pi-1").inference == INFERENCE
        fixed = tuned.advise([RECORD, SLOWER], facts, "pi-1", runtime="tflite-runtime")
        assert fixed.inference == SLOWER.configuration.inference

    def test_the_best_of_the_slower_runtime_is_nothing_to_fall_back_to(self) -> None:
        facts = replace(FACTS, runtimes=(RuntimeOffer(name="ai-edge-litert", version="2.4.0"), TFLITE))

        newer = tuned.advise([RECORD, SLOWER], facts, "pi-1")
        lost = tuned.advise([SLOWER], facts, "pi-1")
        alone = tuned.advise([RECORD, SLOWER], replace(FACTS, runtimes=(TFLITE,)), "pi-1")

        assert newer.inference is lost.inference is None
        assert newer.said.startswith("not as tuned: found with ai-edge-litert==2.3.0, now it is ai-edge-litert==2.4.0")
        assert lost.said.startswith("not as tuned: what still holds is the best with tflite-runtime only")
        assert alone.inference == SLOWER.configuration.inference

    def test_figures_that_may_not_be_quoted_are_applied_and_said_to_be_so(self) -> None:
        advice = tuned.advise([replace(RECORD, valid=False)], FACTS, "pi-1")

        assert advice.inference == INFERENCE
        assert advice.said.endswith("processor 1,2,3 (its figures were INVALID)")

    def test_a_batch_can_not_be_served(self) -> None:
        record = replace(RECORD, configuration=Configuration(inference=INFERENCE, batch=8))

        assert tuned.advise([record], FACTS, "pi-1").said.startswith("not as tuned: it runs several samples at once")
