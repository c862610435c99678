"""The child process that does what must not be done in the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tflotilla.host.models import child
from tflotilla.shared.contract.errors import ConversionError, InputError, ModelError

HERE = __name__


@pytest.fixture(autouse=True)
def _child_finds_these_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def answer(number: int) -> dict[str, Any]:
    child.report_progress("half way")
    child.report_progress("nearly there")
    return {"doubled": number * 2, "path": Path("/x").name}


def refuse() -> NoReturn:
    raise ConversionError("the op 'FANCY' can't be quantized")


def stumble() -> NoReturn:
    raise KeyError("surprise")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> NoReturn:
    os.write(2, b"noise\nthe last words\n")
    os._exit(3)


def fill_the_disk() -> None:
    with Path("/dev/full").open("wb") as full:
        full.write(b"x" * 10_000)


def talk() -> str:
    os.write(1, b"noise on stdout\n")
    return "done"


def show_environment() -> dict[str, str]:
    return dict(os.environ)


def hang() -> None:
    time.sleep(600)


def hang_and_tell() -> None:
    child.report_progress(str(os.getpid()))
    time.sleep(600)


def test_returns_the_result_and_reports_progress_in_order() -> None:
    heard: list[str] = []

    result = child.call(f"{HERE}:answer", {"number": 21}, on_progress=heard.append)

    assert result == {"doubled": 42, "path": "x"}
    assert heard == ["half way", "nearly there"]


def test_an_error_of_ours_arrives_with_its_class_and_its_words() -> None:
    with pytest.raises(ConversionError, match=r"^the op 'FANCY' can't be quantized$"):
        child.call(f"{HERE}:refuse", {})


def test_a_bug_in_the_function_is_a_runtime_error_with_the_traceback_as_a_note() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'surprise'") as caught:
        child.call(f"{HERE}:stumble", {})

    assert any("in stumble" in note for note in caught.value.__notes__)


def test_a_crash_is_a_model_error_that_names_the_signal() -> None:
    with pytest.raises(ModelError, match=r"^converting x: crashed \(SIGSEGV\)$"):
        child.call(f"{HERE}:crash", {}, doing="converting x")


def test_an_end_without_an_answer_shows_the_last_line_of_the_log() -> None:
    with pytest.raises(ModelError, match=r"ended without an answer \(exit 3: the last words\)"):
        child.call(f"{HERE}:leave", {})


def test_a_full_disk_is_bad_luck_and_not_a_bug() -> None:
    with pytest.raises(InputError, match="No space left on device"):
        child.call(f"{HERE}:fill_the_disk", {})


def test_what_libraries_print_reaches_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    result = child.call(f"{HERE}:talk", {})

    assert result == "done"
    assert capfd.readouterr() == ("", "")


def test_the_child_sees_no_keys_and_no_home_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("SOME_TOKEN", "secret")

    seen = child.call(f"{HERE}:show_environment", {})

    assert "SSH_AUTH_SOCK" not in seen
    assert "SOME_TOKEN" not in seen
    assert seen["HOME"] != os.environ.get("HOME")
    assert not Path(seen["HOME"]).exists()


def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ModelError, match="measuring: gave up after 1 s"):
        child.call(f"{HERE}:hang", {}, doing="measuring", timeout_s=1)


def test_an_interrupted_call_leaves_no_child_behind() -> None:
    seen: list[int] = []

    def interrupt(text: str) -> None:
        seen.append(int(text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.call(f"{HERE}:hang_and_tell", {}, on_progress=interrupt)

    assert subprocess.run(["ps", "-p", str(seen[0])], capture_output=True, check=False).returncode != 0


def test_a_call_closes_nothing_that_is_not_its_own() -> None:
    """Another thread opens files while calls run, and gets the numbers that they have given back."""
    robbed: list[OSError] = []
    over = threading.Event()

    def open_and_close() -> None:
        while not over.is_set():
            handle = os.open(os.devnull, os.O_RDONLY)
            over.wait(0.0005)
            try:
                os.close(handle)
            except OSError as error:
                robbed.append(error)

    other = threading.Thread(target=open_and_close)
    other.start()
    try:
        for number in range(10):
            child.call(f"{HERE}:answer", {"number": number})
    finally:
        over.set()
        other.join()

    assert robbed == []


def wait_for_ever() -> NoReturn:
    child.report_progress("waiting")
    while True:
        signal.pause()


def test_children_that_other_threads_wait_for_can_be_ended() -> None:
    waits = threading.Event()
    ended: list[ModelError] = []

    def ask() -> None:
        try:
            child.call(f"{HERE}:wait_for_ever", {}, on_progress=lambda _text: waits.set())
        except ModelError as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert waits.wait(60)

    child.end_all()

    asking.join(60)
    assert "SIGKILL" in str(ended[0])


def address_of_a_function() -> int:
    return id(os.stat)


def test_addresses_are_the_same_each_time() -> None:
    """What walks sets of pointers, as TensorFlow's quantizer does, makes the same of the same."""
    found = {child.call(f"{HERE}:address_of_a_function", {}) for _ in range(3)}

    assert len(found) == 1
