"""`tflotilla bundle` and `tflotilla check` as a person types them: what is printed, and the exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests import facts_made, models_made
from tests.host.bundles import making
from tflotilla.host import cli
from tflotilla.host.bundles import archive
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract.board import BoardFacts, RuntimeOffer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = RuntimeOffer(name="tflite-runtime", version="2.14.0")
NEW = RuntimeOffer(name="ai-edge-litert", version="2.3.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """What `--json` printed."""
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ran]:
    """Run a command line in this process, in a folder without a fleet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFLOTILLA_FLEET", raising=False)

    def tflotilla(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tflotilla", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ran(code=int(ended.value.code or 0), out=captured.out, err=captured.err)

    return tflotilla


def _facts(*runtimes: RuntimeOffer) -> BoardFacts:
    return facts_made.facts(model=None, ram_bytes=1 << 30, disk_free_bytes=1 << 30, runtimes=runtimes)


def _fleet(folder: Path, **boards: BoardFacts | None) -> Fleet:
    text = "".join(f'[boards.{name}]\nhost = "192.0.2.1"\nlabels = {{ room = "{name}" }}\n' for name in boards)
    (folder / "fleet.toml").write_text('name = "test"\n' + text)
    fleet = Fleet.load(folder / "fleet.toml")
    for name, facts in boards.items():
        if facts is not None:
            fleet.save_facts(name, facts)
    return fleet


def test_a_bundle_is_made_shown_and_verified(run: Callable[..., Ran], tmp_path: Path) -> None:
    key = making.key(tmp_path)
    signers = making.allowed_signers(tmp_path, key)
    (tmp_path / "labels.txt").write_bytes(models_made.LABELS_TXT)
    model = making.model(tmp_path)

    made = run(
        *("bundle", "create", model, "--version", "1.0.0", "--labels", "labels.txt", "--preprocess", "unit"),
        *("--postprocess", "classification,top_k=2", "--health", "max_p99_ms=20", "--health", "max_p99_ratio=none"),
        *("--audience", "room=kitchen", "--golden-count", "2", "--key", key, "--json"),
    )

    assert made.code == 0
    manifest = made.document["manifest"]
    assert ("tiny_classifier", "1.0.0", 1) == (manifest["name"], manifest["version"], manifest["release"])
    assert "gray" == manifest["preprocessing"]["colour"]
    assert 2 == manifest["postprocessing"]["top_k"]
    assert (20.0, None) == (manifest["health"]["max_p99_ms"], manifest["health"]["max_p99_ratio"])
    assert {"room": "kitchen"} == manifest["audience"]
    shown = run("bundle", "show", "tiny_classifier-1.0.0.tflb")
    assert "release 1" in shown.out
    assert "FULLY_CONNECTED 4" in shown.out
    verified = run("bundle", "verify", "tiny_classifier-1.0.0.tflb", "--allowed-signers", signers)
    assert (0, True) == (verified.code, "signed by key" in verified.out)
    unasked = run("bundle", "verify", "tiny_classifier-1.0.0.tflb")
    assert (0, True) == (unasked.code, "was not checked" in unasked.err)


def test_what_an_evaluation_answered_becomes_the_reference(run: Callable[..., Ran], tmp_path: Path) -> None:
    model = making.model(tmp_path)
    for label in (3, 3, 8):
        file = tmp_path / "data" / str(label) / f"{len(list(tmp_path.rglob('*.png')))}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(models_made.noisy(label, 0)).save(file)
    (tmp_path / "labels.txt").write_bytes(models_made.LABELS_TXT)
    evaluated = run("evaluate", model, "--data", "data", "--preprocess", "unit", "--json")
    (tmp_path / "report.json").write_text(evaluated.out)

    made = run(
        *("bundle", "create", model, "--version", "1.0.0", "--labels", "labels.txt", "--preprocess", "unit"),
        *("--evaluation", "report.json", "--unsigned"),
    )
    bare = run("bundle", "create", model, "--version", "1.0.1", "--preprocess", "unit", "--unsigned")

    assert 0 == made.code
    assert "3 answers of evaluation data: three 67%, eight 33%; 100% score 0.9 or more" in made.out
    assert "none: nothing to tell drift by" in bare.out


def test_goldens_that_can_not_be_read_are_found_by_verify(run: Callable[..., Ran], tmp_path: Path) -> None:
    """Signed and unedited, and still nothing a board could use."""
    path = making.bundle(tmp_path, signed_by=making.key(tmp_path)).path

    verified = run("bundle", "verify", path)

    assert verified.code == 3
    assert "goldens.npz" in verified.err


@pytest.mark.parametrize("kind", ["model", "manifest", "unsigned", "stranger", "elsewhere"])
def test_a_bundle_that_is_not_as_it_was_signed_exits_with_8(run: Callable[..., Ran], tmp_path: Path, kind: str) -> None:
    key, stranger = making.key(tmp_path), making.key(tmp_path, "stranger")
    signers = making.allowed_signers(tmp_path, key)
    members = making.members(tmp_path, signed_by=stranger if kind == "stranger" else key)
    edited = bytearray(members["model.tflite"])
    edited[-1] ^= 1
    spoilt: dict[str, dict[str, bytes]] = {
        "model": {"model.tflite": bytes(edited)},
        "manifest": {"manifest.json": members["manifest.json"].replace(b'"release":1', b'"release":9')},
        "elsewhere": {"manifest.json.sig": making.members(tmp_path, signed_by=key, release=2)["manifest.json.sig"]},
    }
    members |= spoilt.get(kind, {})
    if kind == "unsigned":
        del members["manifest.json.sig"]
    path = archive.write(tmp_path / "spoilt one.tflb", members)

    ran = run("bundle", "verify", path, "--allowed-signers", signers)

    assert 8 == ran.code
    assert ran.err.startswith("tflotilla: ")
    assert 1 == len(ran.err.splitlines())
    assert "spoilt one.tflb" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--version", "1.0.0"), 2, "who signs?"),
        (("--version", "1.0.0", "--unsigned", "--key", "k"), 2, "contradict"),
        (("--version", "a b", "--unsigned"), 2, "version 'a b'"),
        (("--version", "1", "--unsigned", "--name", "A B"), 2, "name 'A B'"),
        (("--version", "1", "--key", "none"), 3, "no such key"),
        (("--version", "1", "--unsigned", "--preprocess", "magic"), 2, "mobilenet"),
        (("--version", "1", "--unsigned", "--postprocess", "poetry"), 2, "classification"),
        (("--version", "1", "--unsigned", "--postprocess", "raw,topk=1"), 2, "did you mean 'top_k'"),
        (("--version", "1", "--unsigned", "--health", "max_p99=1"), 2, "did you mean"),
        (("--version", "1", "--unsigned", "--health", "max_p99_ms"), 2, "KEY=VALUE"),
        (("--version", "1", "--unsigned", "--labels", "none.txt"), 3, "none.txt"),
        (("--version", "1", "--unsigned", "--preprocess", "unit", "--goldens", "nowhere"), 3, "nowhere"),
        (("--version", "1", "--unsigned", "--evaluation", "none.json"), 3, "none.json"),
        (("--version", "1", "--unsigned", "-o", "no/where.tflb"), 3, "no such folder"),
    ],
)
def test_a_bundle_that_can_not_be_made_is_one_line_and_an_exit_code(
    run: Callable[..., Ran], tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    model = making.model(tmp_path)

    ran = run("bundle", "create", model, *arguments)

    assert code == ran.code
    (line,) = (line for line in ran.err.splitlines() if line.startswith("tflotilla:"))
    assert words in line
    assert not list(tmp_path.glob("*.tflb"))


def test_a_model_that_is_none_exits_with_3(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "notes.tflite").write_text("hello, world")

    ran = run("bundle", "create", "notes.tflite", "--version", "1", "--unsigned")

    assert 3 == ran.code
    assert "notes.tflite: not a TFLite model" in ran.err


def test_the_fleets_key_signs_when_none_is_given(run: Callable[..., Ran], tmp_path: Path) -> None:
    making.key(tmp_path)
    (tmp_path / "fleet.toml").write_text('name = "test"\n[signing]\nkey = "key"\n')

    made = run("bundle", "create", making.model(tmp_path), "--version", "1", "--golden-count", "1", "--json")
    verified = run("bundle", "verify", "tiny_classifier-1.tflb", "--json")

    assert (0, 0) == (made.code, verified.code)
    assert ("test", True) == (verified.document["signer"], verified.document["allowed"])


def test_check_says_which_boards_can_run_a_bundle(run: Callable[..., Ran], tmp_path: Path) -> None:
    _fleet(tmp_path, kitchen=_facts(OLD, NEW), cellar=_facts(NEW))
    path = making.bundle(tmp_path).path

    ran = run("check", path, "all")

    assert 0 == ran.code
    assert 2 == ran.out.count("fits")


def test_check_refuses_with_op_version_and_runtime_and_exits_with_4(run: Callable[..., Ran], tmp_path: Path) -> None:
    _fleet(tmp_path, old=_facts(OLD), bare=_facts(), unknown=None)
    members = making.members(tmp_path)
    newer = members["manifest.json"].replace(
        b'{"name":"FULLY_CONNECTED","version":4}', b'{"name":"FULLY_CONNECTED","version":12}'
    )
    path = archive.write(tmp_path / "new.tflb", members | {"manifest.json": newer})
    assert 12 in {op.version for op in Bundle.open(path).manifest.requirements.ops}

    table = run("check", path, "all")
    document = run("check", path, "all", "--json").document

    assert 4 == table.code
    assert "FULLY_CONNECTED version 12; tflite-runtime 2.14.0 accepts 1..10" in table.out
    assert "not bootstrapped" in table.out
    assert "tflotilla board probe unknown" in table.out
    words = {board["board"]: board["verdict"] for board in document["boards"]}
    assert {"old": "refused", "bare": "refused", "unknown": "unknown"} == words


def test_check_of_boards_that_nobody_knows_names_those_there_are(run: Callable[..., Ran], tmp_path: Path) -> None:
    _fleet(tmp_path, kitchen=_facts(NEW))
    path = making.bundle(tmp_path).path

    ran = run("check", path, "celler")

    assert 2 == ran.code
    assert "kitchen" in ran.err


def test_check_without_a_bundle_or_a_fleet_is_one_line(run: Callable[..., Ran], tmp_path: Path) -> None:
    assert 3 == run("check", "none.tflb", "all").code
    ran = run("check", making.bundle(tmp_path).path, "all")

    assert 3 == ran.code
    assert "no fleet file" in ran.err


@pytest.mark.parametrize("command", [("bundle", "create"), ("bundle", "show"), ("bundle", "verify"), ("check",)])
def test_every_help_shows_an_example_and_the_exit_codes(run: Callable[..., Ran], command: tuple[str, ...]) -> None:
    ran = run(*command, "--help")

    assert 0 == ran.code
    assert "Example: tflotilla " + " ".join(command) in ran.out
    assert "Exit codes: 0" in ran.out
