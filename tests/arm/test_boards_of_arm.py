"""The whole way by commands alone, on emulated boards: arm64 and armhf, from sshd and python3 to a rollback.

The tests are steps of one story per architecture and run in order. What emulation can't show is how fast anything is.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tflotilla.device
from tests import brokers, catalogue
from tests.arm import boards, people
from tflotilla.host.bundles.archive import Bundle
from tflotilla.shared.contract.manifest import LABELS, MODEL
from tflotilla.shared.inference import images, runtime
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.end_to_end.commands import Person

# Building a Debian takes minutes, and so do the slowest steps on a busy machine.
pytestmark = [pytest.mark.timeout(2400), pytest.mark.sshd, pytest.mark.mosquitto]

#: Two boards of the fleet on one machine: the system's agent, and that of somebody who is not root.
_ROOT, _PI = "by-root", "by-pi"
_PATIENCE_S = 240.0


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id=str(each), marks=pytest.mark.xdist_group(str(each)))
        for each in (boards.ARM64, boards.ARMHF)
    ],
)
def architecture(request: pytest.FixtureRequest) -> boards.Architecture:
    chosen: boards.Architecture = request.param
    return chosen


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, architecture: boards.Architecture) -> Path:
    # Skipped before anything is trained where there can be no board.
    boards.debian(architecture)
    # xdist's workers have folders beside each other.
    return people.trained(tmp_path_factory.getbasetemp().parent / "tflotilla-arm-models")


@pytest.fixture(scope="module")
def board(
    tmp_path_factory: pytest.TempPathFactory, architecture: boards.Architecture, models: Path
) -> Iterator[boards.Board]:
    folder = tmp_path_factory.mktemp(str(architecture)) / "board"
    with boards.installed(folder, architecture) as installed:
        installed.put(models / "camera", people.CAMERA)
        installed.start()
        yield installed


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, board: boards.Board) -> Iterator[brokers.Mosquitto]:
    folder = tmp_path_factory.mktemp("broker")
    listener = f"listener {people.MQTT_PORT} {board.gateway}"
    with brokers.mosquitto(folder, username=people.USER, password=people.PASSWORD, extra=listener) as running:
        yield running


@pytest.fixture(scope="module")
def person(
    tmp_path_factory: pytest.TempPathFactory, board: boards.Board, broker: brokers.Mosquitto, models: Path
) -> Person:
    assert broker.running
    folder = tmp_path_factory.mktemp("fleet") / "of boards"
    return people.enrol(folder, models, board, {_ROOT: "root", _PI: "pi"})


def test_a_board_says_what_it_is(person: Person, architecture: boards.Architecture) -> None:
    (probed, _same) = person.types("board", "probe", "all", "--json").document["boards"]

    assert architecture.machine == probed["facts"]["arch"]
    assert probed["facts"]["python"].startswith("3.11.")
    assert [] == probed["facts"]["runtimes"]


def test_the_agent_comes_onto_the_board(person: Person) -> None:
    (board,) = person.types("board", "bootstrap", _ROOT, *people.AGENT, "--json").document["boards"]

    runtimes = [offer["name"] for offer in board["hello"]["facts"]["runtimes"]]
    assert [people.RUNTIME] == runtimes


def test_a_second_bootstrap_changes_nothing(person: Person) -> None:
    (board,) = person.types("board", "bootstrap", _ROOT, *people.AGENT, "--json").document["boards"]

    assert [] == board["changed"]


def test_the_goldens_are_reproduced_to_the_last_bit(person: Person) -> None:
    """The bundle tolerates no step of difference in any of its 50 goldens, so that it serves is the proof."""
    done = person.types("deploy", "digits-1.0.0.tflb", _ROOT, "--json").document

    (board,) = done["boards"]
    states = list(dict.fromkeys(status["state"] for status in board["statuses"]))
    assert ["transferring", "verifying", "probing", "switching", "confirming", "succeeded"] == states


def test_every_picture_gets_the_answer_that_it_gets_here(person: Person, models: Path) -> None:
    """Decoding, resizing, quantizing, inferring, ranking: the same label and the same score, over MQTT."""
    heard = _hear(person, _ROOT, "digits-1.0.0.tflb")

    assert _here(person.folder / "digits-1.0.0.tflb", models / "camera", heard.answers) == heard.answers


def test_the_board_reports_its_windows(person: Person) -> None:
    lines = person.types("watch", "--for", "8", "--json").lines

    windows = [line["message"]["body"] for line in lines if line.get("channel") == "metrics"]
    assert sum(window["count"] for window in windows) > 0
    assert [0] * len(windows) == [window["errors"] for window in windows]


def test_a_newer_agent_goes_onto_the_board_and_the_model_stays(person: Person, tmp_path: Path) -> None:
    newer = _with_agent(person, tmp_path, "__init__.py", '__version__ = "', '__version__ = "9.')

    (board,) = newer.types("board", "bootstrap", _ROOT, *people.AGENT, "--json").document["boards"]
    (status,) = newer.types("status", _ROOT, "--json").document["boards"]

    assert "agent" in board["changed"]
    assert board["bytes_sent"] < 1 << 20
    assert board["hello"]["agent_version"].startswith("9.")
    assert ("1.0.0", "running") == (status["serving"]["version"], status["state"]["worker"])


def test_an_agent_that_can_not_start_there_is_undone_by_the_board(person: Person, tmp_path: Path) -> None:
    first = "from __future__ import annotations\n"
    broken = _with_agent(person, tmp_path, "agent.py", first, f"{first}raise RuntimeError\n")

    refused = broken.types("board", "bootstrap", _ROOT, *people.IMPATIENT, code=7)
    (status,) = person.types("status", _ROOT, "--json").document["boards"]

    assert "the old one runs again" in refused.err
    assert ("1.0.0", "running") == (status["serving"]["version"], status["state"]["worker"])


def test_a_release_goes_out_and_comes_back(person: Person) -> None:
    person.types("deploy", "digits-2.0.0.tflb", _ROOT)
    (second,) = person.types("status", _ROOT, "--json").document["boards"]
    person.types("rollback", _ROOT)
    (first,) = person.types("status", _ROOT, "--json").document["boards"]

    assert ("2.0.0", "1.0.0") == (second["serving"]["version"], first["serving"]["version"])


def test_a_board_whose_power_was_cut_comes_back_by_itself(person: Person, board: boards.Board) -> None:
    """Its cron starts the agent; nobody logs in for that."""
    before = _hear(person, _ROOT, "digits-1.0.0.tflb")
    board.power_off()
    person.types("status", _ROOT, code=5)
    board.start()

    after = _hear(person, _ROOT, "digits-1.0.0.tflb", after=before.boots)

    assert {} == {name: said for name, said in after.answers.items() if before.answers.get(name, said) != said}


def test_a_model_with_millions_of_weights_is_computed_to_the_last_bit(person: Person) -> None:
    """MobileNetV2 with its 66 layers, in the board's own kernels."""
    model = catalogue.path("models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite")
    # Half of the probe's time may go into measuring, where there is nothing to measure.
    options = ("--golden-count", "2", "--preprocess", "mobilenet")
    people.create(person, model, "mobilenet", "1.0.0", *options, probe_s=90)

    person.types("deploy", "mobilenet-1.0.0.tflb", _ROOT)
    (status,) = person.types("status", _ROOT, "--json").document["boards"]

    assert "mobilenet" == status["serving"]["name"]


def test_removing_a_board_leaves_nothing_there(person: Person, board: boards.Board) -> None:
    person.types("board", "remove", _ROOT, "--purge")

    assert not (board.files / "var/lib/tflotilla").is_dir()
    crontab = board.files / "var/spool/cron/crontabs/root"
    assert "tflotilla" not in (crontab.read_text() if crontab.is_file() else "")


def test_somebody_without_root_has_all_of_it_in_their_home(person: Person, board: boards.Board, models: Path) -> None:
    person.types("board", "bootstrap", _PI, *people.AGENT)
    person.types("deploy", "digits-2.0.0.tflb", _PI)

    heard = _hear(person, _PI, "digits-2.0.0.tflb")

    assert _here(person.folder / "digits-2.0.0.tflb", models / "camera", heard.answers) == heard.answers
    assert (board.files / "home/pi/.local/share/tflotilla").is_dir()
    assert not (board.files / "var/lib/tflotilla").is_dir()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a board said while one bundle served: each picture's label and score, and since which boot."""

    answers: Mapping[str, tuple[str, float]]
    boots: frozenset[str]


def _hear(person: Person, board: str, bundle: str, *, after: frozenset[str] = frozenset()) -> _Heard:
    """Watch until the board answered for most pictures with that bundle, in a boot that is none of `after`."""
    digest = Bundle.open(person.folder / bundle).digest
    answers: dict[str, tuple[str, float]] = {}
    boots: set[str] = set()
    deadline = time.monotonic() + _PATIENCE_S
    while len(answers) < people.PICTURES * 3 // 4:
        assert time.monotonic() < deadline, (
            f"{board} answered for {len(answers)} pictures: {person.types('status').out}"
        )
        for line in person.types("watch", "--for", "5", "--json").lines:
            message = line["message"]
            if (line.get("channel"), message["board"], message["bundle"]) != ("predictions", board, digest):
                continue
            if message["boot"] in after:
                continue
            boots.add(message["boot"])
            for result in message["body"]["results"]:
                first = result["top"][0]
                answers[result["item"].rpartition("/")[2]] = (first["label"], first["score"])
    return _Heard(answers=answers, boots=frozenset(boots))


def _here(bundle: Path, pictures: Path, names: Iterable[str]) -> Mapping[str, tuple[str, float]]:
    """Return what the bundle answers on this machine to the same pictures."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    assert manifest.preprocessing is not None
    loaded = runtime.find(people.RUNTIME).load(opened.read(MODEL), runtime.LoadOptions())
    prepare = Preprocessor(manifest.preprocessing, loaded.inputs[0])
    labels = opened.read(LABELS).decode().split()
    pipeline = Pipeline(loaded, prepare, Answerer(manifest.postprocessing, loaded.outputs, labels))
    answers = {}
    for name in names:
        first = pipeline.infer_image(images.open_image(pictures / name)).top[0]
        answers[name] = (first.label, first.score)
    return answers


def _with_agent(person: Person, folder: Path, module: str, old: str, new: str) -> Person:
    """Return the same person with another release of the agent at hand, in which one text of a module is another."""
    installed = Path(next(iter(tflotilla.device.__path__)))
    package = folder / "device" / "tflotilla" / "device"
    shutil.copytree(installed, package, ignore=shutil.ignore_patterns("__pycache__"))
    text = (package / module).read_text()
    assert old in text
    (package / module).write_text(text.replace(old, new, 1))
    return dataclasses.replace(person, variables={"PYTHONPATH": str(folder / "device")})
