"""The board's own `benchmark_model`: what it prints becomes a profile, and whatever goes wrong with it one sentence."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import benchmark_model_made as made
from tests import models_made
from tests.device import children, running_bundles
from tests.device.benchmark import cells
from tflotilla.device.benchmark import benchmark_model, inputs, profiling
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import Configuration
from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.inference import benchmark_model_output

if TYPE_CHECKING:
    from tflotilla.shared.contract.benchmark import OperatorProfile

_INFERENCE = InferenceConfig(runtime="ai-edge-litert", num_threads=4)


def _program(folder: Path, text: str) -> Path:
    return made.stands_in(folder, f"sys.stdout.write({text!r})")


def _profile(program: Path) -> OperatorProfile:
    return benchmark_model.profile(program, Path("model.tflite"), _INFERENCE, seconds=1)


@pytest.mark.parametrize("text", [made.INFO, made.LOGGED, made.WITH_START], ids=["info", "logged", "with start"])
def test_its_table_becomes_a_profile(tmp_path: Path, text: str) -> None:
    found = _profile(_program(tmp_path, text))

    assert found.method == "benchmark_model"
    assert [(row.node_type, row.name, row.avg_ms, row.times_called) for row in found.operators] == [
        ("CONV_2D", "net/conv/Relu", 2.0, 1),
        ("AVERAGE_POOL_2D", "net/pool/AvgPool", 0.25, 1),
        ("SOFTMAX", "net/a;net/b, out", 0.25, 1),
    ]
    assert found.operators[0].first_ms == 2.113
    assert found.whole_ms == pytest.approx(2.50432)
    assert "100% of the whole model" in found.note
    assert str(tmp_path) in found.note


def test_what_xnnpack_does_is_not_counted_twice(tmp_path: Path) -> None:
    found = _profile(_program(tmp_path, made.XNNPACK))

    assert [(row.node_type, row.delegated) for row in found.operators] == [
        ("Convolution (NHWC, QU8) IGEMM", True),
        ("Average Pooling (NHWC, QU8)", True),
        ("SOFTMAX", False),
    ]
    assert "left out" in found.note


def test_an_operator_counts_as_often_as_a_run_calls_it(tmp_path: Path) -> None:
    found = _profile(_program(tmp_path, made.LITERT))

    assert "sum is 100% of the whole" in found.note
    assert found.whole_ms == pytest.approx(2.50432)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "used XNNPACK, which is off here"),
        ("WARN: Unconsumed cmdline flags: --num_threads=4\n", "does not know --num_threads"),
    ],
)
def test_a_profile_of_something_else_than_what_was_asked_for_is_none(tmp_path: Path, text: str, reason: str) -> None:
    program = _program(tmp_path, text + made.INFO)

    with pytest.raises(BoardError, match=reason):
        benchmark_model.profile(program, Path("m"), replace(_INFERENCE, xnnpack=False), seconds=1)


def test_a_delegate_that_shows_nothing_of_itself_stays_one_line(tmp_path: Path) -> None:
    lines = [line for line in made.XNNPACK.splitlines(keepends=True) if "\tDelegate/" not in line]

    found = _profile(_program(tmp_path, "".join(lines)))

    assert [(row.node_type, row.delegated) for row in found.operators] == [
        ("TfLiteXNNPackDelegate", True),
        ("SOFTMAX", False),
    ]


def test_it_is_asked_for_what_serves() -> None:
    document = {
        "num_threads": 3,
        "xnnpack": False,
        "delegate": {"library": "/lib/npu.so", "options": {"b": "2", "a": "1"}},
    }
    inference = codec.decode(InferenceConfig, document, "test")

    words = benchmark_model.command(Path("/bin/b"), Path("/m/a b.tflite"), inference, seconds=8)

    assert words[:2] == ["/bin/b", "--graph=/m/a b.tflite"]
    assert {
        "--num_threads=3",
        "--use_xnnpack=false",
        "--enable_op_profiling=true",
        "--use_profiler=true",
        "--min_secs=2",
        "--max_secs=8",
        "--external_delegate_path=/lib/npu.so",
        "--external_delegate_options=a:1;b:2",
    } <= set(words)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.exit('Failed to load graph')", "ended with code 1 (Failed to load graph)"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
        ("print('hello')", "this is not what benchmark_model prints"),
        (f"print({made.OLDEST!r})", "printed no profile"),
        ("while True: print('x' * 9999)", "printed more than 4 MiB"),
    ],
)
def test_whatever_goes_wrong_is_one_sentence(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(BoardError) as caught:
        _profile(made.stands_in(tmp_path, body))

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_for_another_machine_can_not_be_started(tmp_path: Path) -> None:
    program = tmp_path / "benchmark_model"
    program.write_bytes(b"\x7fELF and nothing else")
    program.chmod(0o755)

    with pytest.raises(BoardError, match="can't be started"):
        _profile(program)


def test_one_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_model, "_GRACE_S", 1.0)
    told = tmp_path / "pid"
    body = (
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(told)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )

    with pytest.raises(BoardError, match="did not end within 2 s"):
        _profile(made.stands_in(tmp_path / "bin", body))

    # It was killed with its group; how soon the kernel buries it is its own business.
    deadline = time.monotonic() + children.PATIENCE_S
    while not _gone(int(told.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _gone(int(told.read_text()))


def test_it_is_looked_for_beside_the_agent_and_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, on_path = tmp_path / "home" / "bin", tmp_path / "path"
    monkeypatch.setenv("PATH", str(on_path))
    nothing = benchmark_model.find(beside)
    installed = _program(on_path, "")
    elsewhere = benchmark_model.find(beside)
    own = _program(beside, "")

    assert nothing is None
    assert elsewhere == installed
    assert benchmark_model.find(beside) == own


def test_one_that_is_no_help_is_told_of_and_the_operators_are_timed_all_the_same(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(models_made.read("tiny_classifier"))
    configuration = Configuration(inference=codec.decode(InferenceConfig, {"runtime": children.RUNTIMES[-1]}, "test"))
    image = inputs.stack([(models_made.pattern(3).reshape(1, 8, 8, 1),)])

    found = profiling.best(model, configuration, image, seconds=0.2, program=_program(tmp_path / "bin", "hello\n"))

    assert found.method == "prefix_difference"
    assert len(found.operators) == 4
    assert "benchmark_model was no help: this is not what" in found.note
    assert found.text == "hello\n"


def test_every_text_that_is_read_says_how_well_it_adds_up() -> None:
    output = benchmark_model_output.parse(made.CSV)

    found = benchmark_model.as_profile(output, program=Path("b"), inference=_INFERENCE)

    assert "100% of the whole model" in found.note


def _gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has buried yet has."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_the_one_beside_the_agent_profiles_a_cell(tmp_path: Path) -> None:
    bundle = running_bundles.write(tmp_path / "home" / "bundles" / "b")
    own = _program(tmp_path / "home" / "bin", made.INFO)

    found = profiling.ask(cells.spec(bundle), seconds=1, timeout_s=children.PATIENCE_S)

    assert found.method == "benchmark_model"
    assert str(own) in found.note
