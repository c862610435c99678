"""Boards and brokers that are off, strange, full, old or refuse: on a real sshd, a real mosquitto and the lab.

The board serves a model all the while; the last test of each class sees that it still does.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import brokers, models_made, sshd
from tests.end_to_end.commands import Person, Ran
from tests.end_to_end.mistakes import Clumsy, complaint
from tflotilla.host.bundles import archive, build
from tflotilla.host.lab import lab
from tflotilla.host.lab.faults import Faults
from tflotilla.shared.contract.manifest import MANIFEST, MODEL, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.sshd, pytest.mark.xdist_group("bad_boards")]
_SIGNING = '\n[signing]\nkey = "key"\n'
#: Asked before tests change HOME: what was fetched once needs no network again.
_CACHES = {
    "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or os.path.expanduser("~/.cache/uv"),  # noqa: PTH111 - text
    "TFLOTILLA_CACHE": os.environ.get("TFLOTILLA_CACHE") or os.path.expanduser("~/.cache/tflotilla"),  # noqa: PTH111
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the person of this module a home without keys, ssh configuration and agent; return it."""
    home = tmp_path_factory.mktemp("person")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _CACHES.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        patch.delenv("TFLOTILLA_FLEET", raising=False)
        yield home


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("board")) as running:
        yield running


@pytest.fixture(scope="module")
def somebody(quiet: Path, board: sshd.Sshd, tmp_path_factory: pytest.TempPathFactory) -> Clumsy:
    """Give somebody whose one board serves digits 1.0.0 while all this happens."""
    del quiet
    folder = tmp_path_factory.mktemp("fleet of $(touch pwned)")
    made = Clumsy(folder=folder)
    (folder / "m.tflite").write_bytes(models_made.read("tiny_classifier"))
    for key in ("key", "stranger"):
        sshd.generate_key(folder / key)
    for release, options in ((1, ()), (2, ()), (3, ("--audience", "site=elsewhere"))):
        _done(
            made,
            *("bundle", "create", "m.tflite", "--name", "digits", "--version", f"{release}.0.0", "--key", "key"),
            *("--preprocess", "unit", "--golden-count", "2", "--health", "confirm_window_s=0.1", *options),
        )
    _done(
        made,
        *("board", "add", "pi-1", f"{board.user}@{board.host}:{board.port}", "--identity", str(board.client_key)),
        *("--fingerprint", board.fingerprint, "--install", "user", "--label", "site=lab"),
    )
    with (folder / "fleet.toml").open("a") as fleet:
        fleet.write(_SIGNING)
    _done(made, "board", "bootstrap", "all")
    _done(made, "deploy", "digits-1.0.0.tflb", "all")
    return made


@pytest.fixture(autouse=True)
def _serving(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever was tried, the old model serves afterwards, and the fleet file is as it was."""
    if "somebody" not in request.fixturenames:
        yield
        return
    person: Clumsy = request.getfixturevalue("somebody")
    fleet = (person.folder / "fleet.toml").read_bytes()
    yield
    (person.folder / "fleet.toml").write_bytes(fleet)
    (status,) = _done(person, "status", "--json").document["boards"]
    assert "1.0.0" == status["serving"]["version"]
    assert status["running"]


def _done(person: Clumsy, *arguments: str) -> Ran:
    ran = person.types(*arguments)
    assert ran.code == 0, ran.err
    return ran


def _edit(person: Clumsy, old: str, new: str) -> None:
    fleet = person.folder / "fleet.toml"
    text = fleet.read_text()
    assert old in text
    fleet.write_text(text.replace(old, new))


_DEPLOY = ("deploy", "digits-2.0.0.tflb", "all")


def test_a_board_that_is_off(somebody: Clumsy, board: sshd.Sshd) -> None:
    board.relay.stop()
    try:
        for command in (("status",), _DEPLOY, ("rollback", "all"), ("board", "probe", "all"), (*_DEPLOY, "--json")):
            said = complaint(somebody.types(*command), 5)
            assert said.startswith("pi-1")
            assert str(board.port) in said
        document = somebody.types("status", "--json").document
    finally:
        board.relay.start()

    assert "UnreachableError" == document["boards"][0]["error"]
    assert 5 == document["exit_code"]


def test_a_changed_host_key(somebody: Clumsy, board: sshd.Sshd) -> None:
    kept = {path: path.read_bytes() for path in (board.host_key, board.host_key.with_name("host_key.pub"))}
    board.change_host_key()
    try:
        for command in (("status",), _DEPLOY):
            assert "another host key" in complaint(somebody.types(*command), 6)
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
        board.restart()


def test_an_unknown_host_key(somebody: Clumsy) -> None:
    known = somebody.folder / ".tflotilla/known_hosts"
    kept = known.read_bytes()
    known.write_bytes(b"")
    try:
        assert "not pinned" in complaint(somebody.types(*_DEPLOY), 6)
    finally:
        known.write_bytes(kept)


def test_a_refused_login(somebody: Clumsy, board: sshd.Sshd) -> None:
    _edit(somebody, str(board.client_key), str(somebody.folder / "stranger"))

    assert "authorized_keys" in complaint(somebody.types(*_DEPLOY), 6)


def test_a_missing_key_file(somebody: Clumsy, board: sshd.Sshd) -> None:
    _edit(somebody, str(board.client_key), "/nowhere/key")

    assert "/nowhere/key" in complaint(somebody.types(*_DEPLOY), 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('[agent.source]\nkind = "camera9"\n', "known are folder, synthetic"),
        ('[agent.source]\nkind = "folder"\n', "source.path is missing"),
        ('[mqtt]\nhost = "127.0.0.1"\npassword_file = "nowhere"\n', "nowhere"),
        ("[agent.inference]\nnum_threads = 0\n", "1..64"),
    ],
)
def test_settings_that_can_not_be_are_refused_before_the_agent_is_touched(
    somebody: Clumsy, settings: str, words: str
) -> None:
    with (somebody.folder / "fleet.toml").open("a") as fleet:
        fleet.write(settings)

    assert words in complaint(somebody.types("board", "bootstrap", "all"), 3)


def test_an_interpreter_that_is_none_is_not_run_by_a_shell(somebody: Clumsy, board: sshd.Sshd) -> None:
    _edit(somebody, "[boards.pi-1]\n", '[boards.pi-1]\npython = "$(touch pwned)"\n')

    assert "has no $(touch pwned)" in complaint(somebody.types("board", "probe", "all"), 7)
    assert not list(board.folder.rglob("pwned"))


def test_a_board_that_is_not_meant(somebody: Clumsy) -> None:
    for command in (("check", "digits-3.0.0.tflb", "all"), ("deploy", "digits-3.0.0.tflb", "all")):
        assert "site" in complaint(somebody.types(*command), 4)


@pytest.mark.parametrize("model", ["custom_op", "op_version_too_high"])
def test_ops_that_the_board_lacks_are_named_before_a_byte_is_sent(somebody: Clumsy, model: str) -> None:
    """No runtime here makes goldens for such a model; a colleague's might."""
    from tflotilla.host.models.inspect import inspect_bytes

    data = models_made.read(model)
    members = archive.members(somebody.folder / "digits-2.0.0.tflb")
    manifest = Manifest.from_bytes(members[MANIFEST])
    files = {name: members[name] for name in manifest.files} | {MODEL: data}
    changed = dataclasses.replace(manifest, requirements=inspect_bytes(data, "m").requirements)
    archive.write(somebody.folder / "odd.tflb", build.seal(changed, files, key=somebody.folder / "key"))

    for command in (("check", "odd.tflb", "all"), ("deploy", "odd.tflb", "all")):
        said = complaint(somebody.types(*command), 4)
        assert ("custom op" if model == "custom_op" else "FULLY_CONNECTED version") in said


def test_a_selector_that_picks_nobody(somebody: Clumsy) -> None:
    for selector in ("pi-2", "site=roof", "!all", "", "$(id)", "-x", "ü"):
        assert complaint(somebody.types("deploy", "digits-2.0.0.tflb", "--", selector), 2)


def test_a_python_that_went_away(somebody: Clumsy, board: sshd.Sshd) -> None:
    """The agent runs on; who asks it is told what the board lacks."""
    python = board.bin / "python3"
    target = python.readlink()
    python.unlink()
    python.write_text("#!/bin/sh\nexit 127\n")
    python.chmod(0o755)
    try:
        for command in (_DEPLOY, ("board", "probe", "all"), ("board", "bootstrap", "all")):
            assert complaint(somebody.types(*command), 7).startswith("pi-1")
    finally:
        python.unlink()
        python.symlink_to(target)


def test_an_agent_that_does_not_run(somebody: Clumsy, board: sshd.Sshd) -> None:
    board.kill_processes()

    assert "bootstrap pi-1" in complaint(somebody.types(*_DEPLOY), 7)
    _done(somebody, "board", "bootstrap", "all")


def test_ctrl_c_in_the_middle_of_a_deployment(somebody: Clumsy, board: sshd.Sshd) -> None:
    """The line is slow, so that there is a middle. The same again, later, goes on from there."""
    board.relay.rate_bytes_per_s = 1500
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "tflotilla.host", *_DEPLOY],
            cwd=somebody.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        board.relay.rate_bytes_per_s = None
        board.relay.cut()

    assert complaint(Ran(code=process.returncode, out=out, err=first + err), 130) == "interrupted"


@pytest.mark.mosquitto
class TestBroker:
    """`watch` and `benchmark` need one."""

    @pytest.fixture(scope="class")
    def broker(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Mosquitto]:
        with brokers.mosquitto(tmp_path_factory.mktemp("broker"), username="fleet", password="right") as running:
            yield running

    @pytest.mark.parametrize("command", [("watch", "--for", "1"), ("benchmark", "all", "--over", "mqtt")])
    def test_none_is_named(self, somebody: Clumsy, command: tuple[str, ...]) -> None:
        assert "no [mqtt] table" in complaint(somebody.types(*command), 3)

    @pytest.mark.parametrize("command", [("watch", "--for", "1"), ("benchmark", "all", "--timeout", "1")])
    def test_it_refuses_the_password_or_is_down(
        self, somebody: Clumsy, broker: brokers.Mosquitto, command: tuple[str, ...]
    ) -> None:
        (somebody.folder / "password").write_text("wrong\n")
        with (somebody.folder / "fleet.toml").open("a") as fleet:
            fleet.write(f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
            fleet.write('username = "fleet"\npassword_file = "password"\n')

        assert "password" in complaint(somebody.types(*command), 10)
        broker.stop()
        try:
            assert str(broker.port) in complaint(somebody.types(*command), 10)
        finally:
            broker.start()

    def test_a_board_that_does_not_answer_over_it(self, somebody: Clumsy, broker: brokers.Mosquitto) -> None:
        (somebody.folder / "password").write_text("right")
        with (somebody.folder / "fleet.toml").open("a") as fleet:
            fleet.write(f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
            fleet.write('username = "fleet"\npassword_file = "password"\n')

        assert complaint(somebody.types("benchmark", "all", "--timeout", "1"), 10).startswith("pi-1")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_board_without_space(quiet: Path, tmp_path: Path, somebody: Clumsy) -> None:
    """Its HOME is a tiny disk: neither an environment nor, later, a bundle fits; nothing half-done is left."""
    del quiet
    with sshd.running(tmp_path / "full") as full:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", full.home], check=False).returncode:
            pytest.skip("this root may not mount")
        try:
            person = Clumsy(folder=tmp_path)
            _done(
                person,
                *("board", "add", "pi-9", f"{full.user}@{full.host}:{full.port}", "--install", "user"),
                *("--identity", str(full.client_key), "--fingerprint", full.fingerprint),
            )
            shutil.copy(somebody.folder / "key.pub", tmp_path)
            with (tmp_path / "fleet.toml").open("a") as fleet:
                fleet.write(_SIGNING)
            said = complaint(person.types("board", "bootstrap", "all"), 7)
            left = [path for path in full.home.rglob("*") if path.is_file() and path.stat().st_size]
        finally:
            full.stop()
            full.kill_processes()
            subprocess.run(["umount", full.home], check=True)

    assert "no space" in said
    assert "are needed" in said
    assert not left


class TestLab:
    """The same faults on virtual boards, by their switches; each command in a process of its own."""

    @pytest.fixture(scope="class")
    def here(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
        with lab.up(home=tmp_path_factory.mktemp("labs"), boards=1, bound=True, broker="embedded") as up:
            yield up

    @pytest.mark.parametrize(
        ("faults", "code", "words"),
        [
            (Faults(refuse_connections=True), 5, "is it on?"),
            (Faults(refuse_login=True), 6, "refused our key"),
            (Faults(python="missing"), 7, "Python 3.10 or newer"),
            (Faults(python="old"), 7, "3.7"),
            (Faults(cut_after_bytes=5000, cuts=1000), 5, "lab-1"),
        ],
        ids=["off", "login", "no python3", "old python3", "cut"],
    )
    def test_a_fault_has_its_line_and_its_exit_code(
        self, here: lab.Lab, tmp_path: Path, faults: Faults, code: int, words: str
    ) -> None:
        person = Person(folder=here.fleet_file.parent, home=tmp_path)
        here.set_faults("lab-1", faults)
        try:
            ran = person.types("board", "probe", "all", code=None)
        finally:
            here.set_faults("lab-1", Faults())

        assert words in complaint(ran, code)

    def test_a_stranger_at_its_address(self, here: lab.Lab, tmp_path: Path) -> None:
        person = Person(folder=here.fleet_file.parent, home=tmp_path)
        here.change_host_key("lab-1")

        assert "another host key" in complaint(person.types("board", "probe", "all", code=None), 6)
