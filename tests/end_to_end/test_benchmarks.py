"""Benchmarks by commands alone, on a real OpenSSH sshd and a real mosquitto: one board, in the order of one story."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import brokers, models_made, sshd
from tests.end_to_end import real_servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.commands import Person, Ran

pytestmark = [pytest.mark.sshd, pytest.mark.mosquitto, pytest.mark.xdist_group("benchmarks")]

#: Quick: what is tested is the way of the figures, not the figures.
QUICK = ("--min-runs", "70", "--min-seconds", "0", "--max-seconds", "20", "--warmup-runs", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = real_servers.fill(tmp_path_factory.mktemp("benchmarks"))
    pictures = np.stack([models_made.noisy(label, seed=label) for label in range(10)])
    np.savez(made / "labelled.npz", x=pictures[..., None], y=np.arange(10))
    np.savez(made / "mislabelled.npz", x=pictures[..., None], y=(np.arange(10) + 1) % 10)
    return made


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Mosquitto]:
    folder = tmp_path_factory.mktemp("broker")
    with brokers.mosquitto(folder, username=real_servers.USER, password=real_servers.PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def person(folder: Path, broker: brokers.Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with sshd.running(tmp_path_factory.mktemp("board")) as board:
        someone = real_servers.enrol(folder, broker, board)
        someone.types("deploy", "digits-1.0.0.tflb", "all")
        yield someone


def only_part(ran: Ran) -> Any:  # noqa: ANN401 - JSON
    (part,) = ran.document["boards"]
    return part


def only_cell(ran: Ran) -> Any:  # noqa: ANN401 - JSON
    (cell,) = only_part(ran)["cells"]
    return cell


@pytest.mark.parametrize("way", ["mqtt", "ssh"])
def test_every_configuration_is_measured_in_a_process_of_its_own_and_serving_goes_on(person: Person, way: str) -> None:
    ran = person.types("benchmark", "pi-1", "--threads", "1,64", "--over", way, *QUICK, "--json")

    part = only_part(ran)
    assert part["error"] is None
    assert part["identity"]["title"] == "digits-1.0.0"
    measured = [cell["measurement"] for cell in part["cells"] if cell["measurement"] is not None]
    refused = [cell["error"] for cell in part["cells"] if cell["error"] is not None]
    assert len(measured) == len(refused) == len(part["identity"]["facts"]["runtimes"])
    assert {"refused"} == {error["kind"] for error in refused}
    for cell in part["cells"]:
        if cell["measurement"] is None:
            continue
        assert cell["measurement"]["runs"] >= 70
        assert cell["measurement"]["correctness"]["goldens"] == cell["measurement"]["correctness"]["goldens_total"] > 0
        assert cell["serving"]["errors"] == cell["serving"]["restarts"] == 0


def test_a_bundle_that_does_not_serve_is_measured_and_does_not_serve_afterwards(person: Person) -> None:
    ran = person.types("benchmark", "pi-1", "--models", "digits-1.0.0.tflb", "digits-2.0.0.tflb", *QUICK, "--json")

    assert ["digits-1.0.0", "digits-2.0.0"] == [part["identity"]["title"] for part in ran.document["boards"]]
    one, other = (part["identity"]["model_sha256"] for part in ran.document["boards"])
    assert one != other
    (status,) = person.types("status", "--json").document["boards"]
    assert status["serving"]["version"] == "1.0.0"


@pytest.mark.parametrize(("data", "right"), [("labelled.npz", 10), ("mislabelled.npz", 0)])
def test_accuracy_is_found_in_the_same_run(person: Person, data: str, right: int) -> None:
    models = ("--models", "digits-1.0.0.tflb", "--data", data, "--runtimes", "ai-edge-litert")

    found = only_cell(person.types("benchmark", "pi-1", *models, *QUICK, "--json"))["measurement"]["correctness"]

    assert (found["right"], found["labelled"]) == (right, 10)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--scenario", "multi-stream"), "latency"),
        (("--scenario", "offline", "--batch", "2"), "samples_per_second"),
        (("--scenario", "server", "--qps", "50"), "qps"),
        (("--scenario", "server", "--latency-bound", "20ms"), "trials"),
        (("--stages",), "stages"),
        (("--profile",), "profile"),
        (("--sustained", "2s"), "sustained"),
        (("--rate", "50"), "latency"),
        (("--inputs", "random", "--seed", "3"), "latency"),
    ],
)
def test_every_scenario_and_pass_has_its_figures(person: Person, options: tuple[str, ...], key: str) -> None:
    timed = ("--min-runs", "70", "--min-seconds", "0.2", "--max-seconds", "2", "--runtimes", "ai-edge-litert")

    found = only_cell(person.types("benchmark", "pi-1", *options, *timed, "--json"))

    assert found["error"] is None
    assert found["measurement"][key]


def test_a_result_is_kept_shown_compared_and_measured_again(person: Person) -> None:
    litert = ("--runtimes", "ai-edge-litert")
    person.types("benchmark", "pi-1", *litert, *QUICK, "--name", "base", "-o", "base.json", "-o", "base.html")
    again = only_part(person.types("benchmark", "--rerun", "base.json", "--name", "again", "--json"))

    held = json.loads((person.folder / "base.json").read_text())["boards"][0]["request"]
    assert again["request"] == held | {"request": again["request"]["request"]}
    assert "base" in person.types("benchmark", "history").out
    assert "digits-1.0.0" in person.types("benchmark", "show", "again").out
    same = person.types("benchmark", "compare", "base", "base.json", code=None)
    assert same.code in (0, 3), same.err


def test_a_second_benchmark_on_a_board_is_told_that_it_is_busy(person: Person) -> None:
    long = ("benchmark", "pi-1", "--runtimes", "ai-edge-litert", "--min-seconds", "15", "--max-seconds", "30")
    with _started(person, *long) as first:
        _wait_for_word(first, "measuring: pi-1")
        second = person.types("benchmark", "pi-1", *QUICK, code=11)
        over_ssh = person.types("benchmark", "pi-1", "--over", "ssh", *QUICK, code=11)
        # As `timeout -s INT` does it: the second must not cut short what the first began.
        first.send_signal(signal.SIGINT)
        time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=brokers.PATIENCE_S)

    assert "is running on this board" in second.err
    assert "is running on this board" in over_ssh.err
    assert first.returncode == 130
    # Cancelled with its asker: the board is free again.
    brokers.until(
        lambda: person.types("benchmark", "pi-1", "--runtimes", "ai-edge-litert", *QUICK, code=None).code == 0,
        "the board to be free",
    )


def test_a_broker_that_dies_in_the_middle_costs_nothing(person: Person, broker: brokers.Mosquitto) -> None:
    options = ("--runtimes", "ai-edge-litert", "--xnnpack", "both", "--min-seconds", "3", "--max-seconds", "10")
    with _started(person, "benchmark", "pi-1", *options, "--json") as running:
        _wait_for_word(running, "measuring: pi-1")
        broker.kill()
        restarted = threading.Timer(2.0, broker.start)
        restarted.start()
        out, _ = running.communicate(timeout=2 * brokers.PATIENCE_S)
        restarted.join()

    assert running.returncode == 0
    (part,) = json.loads(out)["boards"]
    assert [True, True] == [cell["measurement"] is not None for cell in part["cells"]]


def test_a_bundle_of_a_stranger_is_refused_before_anything_is_sent(person: Person) -> None:
    sshd.generate_key(person.folder / "strange key")
    person.types(
        *("bundle", "create", "tiny_classifier.tflite", "--name", "strange", "--version", "1.0.0", "--key"),
        *("strange key", "--labels", "labels.txt", "--preprocess", "unit,colour=gray", "-o", "strange.tflb"),
    )

    ran = person.types("benchmark", "pi-1", "--models", "strange.tflb", code=8)

    assert len(ran.err.strip().splitlines()) <= 2


def _started(person: Person, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tflotilla.host", *arguments],
        cwd=person.folder,
        env=person.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_word(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"it ended without a word of {word!r}")
