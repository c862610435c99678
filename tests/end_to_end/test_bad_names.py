"""Names, figures and command lines that a person gets wrong, and names that only a shell would mind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import catalogue, models_made, sshd
from tests.end_to_end.commands import Person, Ran
from tests.end_to_end.mistakes import Clumsy, clumsy, complaint, listing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["clumsy"]
_SHELL = ("$(touch pwned)", "`touch pwned`", "a;b")
_ODD = (
    *_SHELL,
    "a b",
    "it's",
    'say "x"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;b",
    "line\nbreak",
    "tab\t",
    "ünï",
    "🦜",
    "-x",
    "--json",
)
_CREATE = ("bundle", "create", "m.tflite", "--key", "key", "--preprocess", "unit", "--golden-count", "2")


@pytest.fixture
def somebody(clumsy: Clumsy) -> Clumsy:
    """Give somebody with a model, labels, a key, and a fleet of one board that is off."""
    (clumsy.folder / "m.tflite").write_bytes(models_made.read("tiny_classifier"))
    (clumsy.folder / "labels.txt").write_bytes(models_made.LABELS_TXT)
    sshd.generate_key(clumsy.folder / "key")
    (clumsy.folder / "fleet.toml").write_text('name = "home"\n[boards.pi-1]\nhost = "127.0.0.1"\nport = 9\n')
    return clumsy


@pytest.mark.parametrize("name", [*_ODD, "", "A", "a/b", "../x", ".", "..", "x" * 65])
def test_a_model_name_that_can_not_be_one(somebody: Clumsy, name: str) -> None:
    said = somebody.errs(*_CREATE, f"--name={name}", "--version", "1", "-o", "x.tflb", code=2)

    assert said.startswith("name ")
    assert "lower-case letters" in said


@pytest.mark.parametrize("version", [*_ODD, "", "1/2", "../..", "v" * 65])
def test_a_version_that_can_not_be_one(somebody: Clumsy, version: str) -> None:
    assert somebody.errs(*_CREATE, "--name", "x", f"--version={version}", code=2).startswith("version ")


@pytest.mark.parametrize("name", [*_ODD, "PI", "a_b", "", "pi-", "x" * 64])
def test_a_board_name_that_can_not_be_one(somebody: Clumsy, name: str) -> None:
    ran = somebody.types("board", "add", "--accept-new", "--", name, "127.0.0.1:9")

    # `pi-` is a name; its board is off.
    assert complaint(ran, 5 if name == "pi-" else 2)


@pytest.mark.parametrize(
    "address", ["", "@", "a b", "-oProxyCommand=id", "$(id)@h", "h:x", "h:0", "h:99999", "u@", "h;id", "a\nb", "a\tb"]
)
def test_an_address_that_can_not_be_one(somebody: Clumsy, address: str) -> None:
    said = somebody.errs("board", "add", "--accept-new", "--", "pi-2", address, code=2)

    assert any(word in said for word in ("address", "host", "user", "port")), said


@pytest.mark.parametrize("label", ["x", "a b=c", "=c", "a=b=c", "a=b c", "!a=b", "a=b,c"])
def test_a_label_that_can_not_be_one(somebody: Clumsy, label: str) -> None:
    assert "key=value" in somebody.errs("board", "add", "--accept-new", "pi-2", "h", "--label", label, code=2)


@pytest.mark.parametrize(
    "selector", ["", " ", "nope", "site=roof", "!all", "$(touch pwned)", "pi-[", "ü", "line\nbreak", "-x"]
)
def test_a_selector_that_picks_nobody(somebody: Clumsy, selector: str) -> None:
    assert somebody.errs("status", "--", selector, code=2)


@pytest.mark.parametrize("name", _ODD)
def test_odd_file_names_are_just_names(somebody: Clumsy, name: str) -> None:
    """Model, labels, key, images, folders, bundle: all of them may be called anything."""
    folder = somebody.folder / name
    folder.mkdir()
    for file in ("m.tflite", "labels.txt", "key"):
        (folder / f"{name} {file}").write_bytes((somebody.folder / file).read_bytes())
    (folder / f"{name} key").chmod(0o600)
    (folder / f"{name} photos").mkdir()
    for label in range(3):
        Image.fromarray(models_made.noisy(label, seed=label)).save(folder / f"{name} photos" / f"{name} {label}.png")

    made = somebody.types(
        *("bundle", "create", "--name", "x", "--version", "1", "--preprocess", "unit"),
        *("--labels", f"./{name}/{name} labels.txt", f"--key=./{name}/{name} key"),
        *(f"--goldens=./{name}/{name} photos", f"--output=./{name}/{name}.tflb", "--", f"./{name}/{name} m.tflite"),
    )
    assert made.code == 0, made.err
    for command in (("bundle", "verify"), ("bundle", "show"), ("inspect",)):
        shown = somebody.types(*command, "--json", "--", f"./{name}/{name}.tflb")
        assert shown.code == 0, shown.err
        json.loads(shown.out)


def test_odd_labels_reach_the_bundle_as_they_are(somebody: Clumsy) -> None:
    labels = [label.strip() for label in _ODD if label.strip().isprintable()]
    labels = (labels + ["x"] * 10)[:10]
    (somebody.folder / "odd.txt").write_text("".join(f"{label}\n" for label in labels))

    ran = somebody.types(*_CREATE, "--name", "x", "--version", "1", "--labels", "odd.txt", "-o", "x")

    assert ran.code == 0, ran.err
    assert labels == (somebody.folder / "x/labels.txt").read_text().splitlines()


_BAD_FLEETS = {
    "not TOML": ("[[[", ""),
    "not text": ("\udcff", "UTF-8"),
    "empty": ("", "'name' is missing"),
    "a thousand brackets": (f'name = "x"\nx = {"[" * 3000}{"]" * 3000}\n', ""),
    "a name with a space": ('name = "a b"\n', "fleet name"),
    "an unknown key": ('name = "x"\ncolour = 1\n', "unknown key 'colour'"),
    "a key twice": ('name = "x"\nname = "x"\n', ""),
    "a port of text": ('name = "x"\n[mqtt]\nport = "a"\n', "mqtt.port"),
    "a port beyond": ('name = "x"\n[mqtt]\nport = 70000\n', "1..65535"),
    "an unknown broker key": ('name = "x"\n[mqtt]\npasword = "x"\n', "unknown key 'pasword'"),
    "a board name of shouts": ('name = "x"\n[boards.PI]\nhost = "h"\n', "board name 'PI'"),
    "no host": ('name = "x"\n[boards.pi-1]\n', "'host' is missing"),
    "a host that is an option": ('name = "x"\n[boards.pi-1]\nhost = "-oProxyCommand=id"\n', "not a host name"),
    "a host for a shell": ('name = "x"\n[boards.pi-1]\nhost = "$(id)"\n', "not a host name"),
    "a host with a zero": ('name = "x"\n[boards.pi-1]\nhost = "a\\u0000b"\n', "not a host name"),
    "a user that is an option": ('name = "x"\n[boards.pi-1]\nhost = "h"\nuser = "-x"\n', "not a login name"),
    "labels in a list": ('name = "x"\n[boards.pi-1]\nhost = "h"\nlabels = ["a"]\n', "boards.pi-1.labels"),
    "a label with a space": ('name = "x"\n[boards.pi-1]\nhost = "h"\nlabels = {"a b" = "c"}\n', "label"),
    "an unknown place": ('name = "x"\n[boards.pi-1]\nhost = "h"\ninstall = "cloud"\n', '"auto"'),
    "no threads": ('name = "x"\n[agent.inference]\nnum_threads = 0\n[boards.pi-1]\nhost = "h"\n', "1..64"),
    "threads of text": (
        'name = "x"\n[agent.inference]\nnum_threads = "four"\n[boards.pi-1]\nhost = "h"\n',
        "whole number",
    ),
    "an unknown runtime": ('name = "x"\n[agent.inference]\nruntime = "onnx"\n[boards.pi-1]\nhost = "h"\n', '"auto"'),
    "an agent's own name": ('name = "x"\n[agent]\nboard = "y"\n[boards.pi-1]\nhost = "h"\n', "can't be set"),
    "a window below zero": ('name = "x"\n[agent.reporting]\nwindow_s = -1\n[boards.pi-1]\nhost = "h"\n', "0.05..3600"),
    "a key that is a number": ('name = "x"\n[signing]\nkey = 3\n', "signing.key"),
}


@pytest.mark.parametrize("kind", _BAD_FLEETS)
def test_a_fleet_file_that_can_not_be(clumsy: Clumsy, kind: str) -> None:
    text, words = _BAD_FLEETS[kind]
    (clumsy.folder / "fleet.toml").write_bytes(text.encode(errors="surrogateescape"))

    said = clumsy.errs("board", "list", code=3)

    assert "fleet.toml" in said
    assert words in said


@pytest.mark.parametrize("place", [".", "nowhere/fleet.toml", "key"])
def test_a_fleet_file_that_is_none(somebody: Clumsy, place: str) -> None:
    for command in (("status",), ("deploy", "x.tflb", "all"), ("watch",), ("board", "remove", "pi-1")):
        assert somebody.errs(*command, "--fleet", place, code=3)


@pytest.mark.parametrize(
    "typed",
    [
        ("deplyo",),
        ("bundle", "crate"),
        ("--colour",),
        ("inspect",),
        ("inspect", "a", "b"),
        ("inspect", "m.tflite", "--colour"),
        ("status", "--forks", "0"),
        ("status", "--forks", "many"),
        ("board", "add", "pi-2", "h", "--install", "cloud"),
        ("board", "add", "pi-2", "h", "--fingerprint", "SHA256:x", "--accept-new"),
        ("bundle", "create", "m.tflite"),
        (*_CREATE, "--version", "1", "--unsigned"),
        (*_CREATE, "--version", "1", "--preprocess", "sepia"),
        (*_CREATE, "--version", "1", "--preprocess", "unit,std=0"),
        (*_CREATE, "--version", "1", "--postprocess", "classification,top_k=0"),
        (*_CREATE, "--version", "1", "--health", "x"),
        (*_CREATE, "--version", "1", "--audience", "x"),
        (*_CREATE, "--version", "1", "--audience", "a b=c"),
        (*_CREATE, "--version", "1", "--reference", "onnx"),
        ("convert", "m.keras"),
        ("convert", "m.keras", "-o", "out", "--scheme", "int9"),
        ("convert", "m.keras", "-o", "out", "--scheme", "int8"),
        ("convert", "m.keras", "-o", "x.tflite", "--scheme", "float32", "--scheme", "float16"),
        ("convert", "m.keras", "-o", "labels.txt"),
        ("convert", "m.keras", "-o", "out", "--target-runtime", "onnx==1"),
        ("convert", "m.keras", "-o", "out", "--input-shapes", "wide"),
        ("convert", "m.keras", "-o", "out", "--samples", "0"),
        ("evaluate", "m.tflite"),
        ("evaluate", "m.tflite", "--data", ".", "--runtime", "onnx"),
        ("evaluate", "m.tflite", "--data", ".", "--threads", "0"),
        ("watch", "--for", "-1"),
        ("watch", "--for", "nan"),
        ("benchmark", "all", "--threads", "0"),
        ("benchmark", "all", "--threads", "many"),
        ("benchmark", "all", "--runtimes", "onnx"),
        ("benchmark", "all", "--max-seconds", "nan"),
        ("lab", "up", "--boards", "0"),
        ("lab", "up", "--name", "a b"),
        ("lab", "down", "../x"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense(somebody: Clumsy, typed: tuple[str, ...]) -> None:
    assert somebody.errs(*typed, code=2)


@pytest.mark.parametrize(
    "command", [("status", "--json"), ("deploy", "x.tflb", "all", "--json"), ("inspect", "x", "--json")]
)
def test_json_stays_json_or_nothing(somebody: Clumsy, command: tuple[str, ...]) -> None:
    ran = somebody.types(*command)

    assert ran.code
    assert complaint(ran, ran.code)
    assert not ran.out or json.loads(ran.out)["exit_code"] == ran.code


@pytest.mark.catalogue
@pytest.mark.parametrize("output", ["labels.txt/x", "folder.tflite", "/dev/null/x"])
def test_an_output_that_can_not_be_is_found_before_tensorflow_loads(somebody: Clumsy, output: str) -> None:
    shutil.copy(catalogue.path("models/mnist/mnist_model52%.keras"), somebody.folder / "m.keras")
    (somebody.folder / "folder.tflite").mkdir()
    before = listing(somebody.folder)

    ran = somebody.types("convert", "m.keras", "-o", output)

    assert ran.code in (2, 3)
    assert output in complaint(ran, ran.code)
    assert "loading TensorFlow" not in ran.err
    assert before == listing(somebody.folder)


@pytest.mark.catalogue
def test_ctrl_c_in_the_middle_of_a_conversion(somebody: Clumsy, tmp_path: Path) -> None:
    """One line, exit code 130, no file, no process, nothing among the temporary files."""
    shutil.copy(catalogue.path("models/mnist/mnist_model52%.keras"), somebody.folder / "m.keras")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = listing(somebody.folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "tflotilla.host", "convert", "m.keras", "-o", "out"],
        cwd=somebody.folder,
        env=os.environ | {"TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert re.match("loading TensorFlow", said[1])
    assert complaint(Ran(code=process.returncode, out=out, err="".join(said) + err), 130) == "interrupted"
    assert before == listing(somebody.folder)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("before", "after", "code", "words"),
    [
        ("", "> /dev/full", 3, "No space left"),
        ("", ">&-", 0, ""),
        ("PYTHONIOENCODING=ascii", "> /dev/null", 0, ""),
        ("mkdir gone && cd gone && rmdir ../gone &&", "", 3, "folder you are in is gone"),
    ],
    ids=["full", "closed", "ascii", "gone"],
)
def test_a_place_where_nothing_can_be_written(somebody: Clumsy, before: str, after: str, code: int, words: str) -> None:
    """What is inspected has characters that ASCII lacks, in its name and in the table."""
    model = somebody.folder / "ünï.tflite"
    shutil.copy(somebody.folder / "m.tflite", model)
    script = f'{before} {sys.executable} -m tflotilla.host inspect "$1" {after}'

    done = subprocess.run(
        ["sh", "-c", script, "sh", model], cwd=somebody.folder, check=False, capture_output=True, text=True
    )

    assert code == done.returncode, done.stderr
    assert not code or words in complaint(Ran(code=done.returncode, out="", err=done.stderr), code)


def test_by_the_command_line_too(tmp_path: Path) -> None:
    """The same in a process of its own; figures that only an argument parser sees, and names with line breaks."""
    person = Person(folder=tmp_path, home=tmp_path)
    np.save(tmp_path / "x.npy", np.zeros(1))

    assert "tflotilla --help" in complaint(person.types("deplyo", code=2), 2)
    assert complaint(person.types("inspect", "line\nbreak", code=3), 3).startswith("line")
