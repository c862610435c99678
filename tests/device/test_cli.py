"""`tflotilla-agent`: exit codes, one-line errors, and which folder is the home."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.device.agents import CONFIG, DEADLINE_S, running_agent
from tests.device.bundles_made import install, make_bundle, make_signer
from tflotilla.device import __version__, cli
from tflotilla.device.home import Home, find

if TYPE_CHECKING:
    from collections.abc import Sequence


def _run(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tflotilla.device", "--home", str(home.path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    found.make()
    found.config.write_text(CONFIG)
    return found


def test_version(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--home", str(home.path), "version"]) == 0
    assert capsys.readouterr().out == f"tflotilla-agent {__version__}\n"


def test_facts_are_json(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["facts", "--home", str(home.path)]) == 0
    assert json.loads(capsys.readouterr().out)["cores"] >= 1


@pytest.mark.parametrize("verb", ["status", "rollback"])
def test_without_an_agent_it_is_one_line_and_exit_code_7(home: Home, verb: str) -> None:
    done = _run(home, verb)

    assert done.returncode == 7
    assert done.stderr.startswith("tflotilla-agent: no agent runs in ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("fly",), ("status", "--jsn")])
def test_wrong_usage_is_exit_code_2(home: Home, arguments: Sequence[str]) -> None:
    assert _run(home, *arguments).returncode == 2


def test_every_command_has_help_and_the_whole_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])

    said = capsys.readouterr().out
    assert "example:" in said
    assert "exit codes:" in said
    for verb in ("run", "session", "start", "stop", "status", "rollback", "facts", "version"):
        assert f"\n    {verb} " in said


def test_status_and_rollback_speak_with_the_agent(home: Home, tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "keys")
    one = make_bundle(tmp_path / "one", signer, version="1.0.0", release=1)
    two = make_bundle(tmp_path / "two", signer, version="2.0.0", release=2)
    install(home, one)
    home.previous.symlink_to(home.current.readlink())
    install(home, two)

    with running_agent(home):
        before = _run(home, "status")
        back = _run(home, "rollback")
        after = json.loads(_run(home, "status", "--json").stdout)
        second = _run(home, "start")

    assert before.stdout.splitlines()[:2] == ["serving    digits-2.0.0", "previous   digits-1.0.0"]
    assert back.stdout.splitlines() == [
        "digits-1.0.0: verifying",
        "digits-1.0.0: switching",
        "digits-1.0.0: succeeded",
    ]
    assert after["serving"]["version"] == "1.0.0"
    assert (second.returncode, second.stderr.count("\n")) == (11, 1)


def test_rollback_of_nothing_is_exit_code_11(home: Home) -> None:
    with running_agent(home):
        done = _run(home, "rollback")

    assert done.returncode == 11
    assert done.stderr == "tflotilla-agent: nothing to roll back to: this board has served one bundle only\n"


def test_stop_ends_an_agent_without_a_guard(home: Home) -> None:
    with running_agent(home) as agent:
        done = _run(home, "stop")
        code = agent.wait(DEADLINE_S)

    assert done.returncode == 0
    assert code == 0


class TestWhichHome:
    def test_the_argument_comes_first(self, tmp_path: Path) -> None:
        assert find(str(tmp_path), {"TFLOTILLA_HOME": "/elsewhere"}) == Home(tmp_path)

    def test_then_the_environment(self, tmp_path: Path) -> None:
        assert find(None, {"TFLOTILLA_HOME": str(tmp_path)}, system=tmp_path / "system") == Home(tmp_path)

    def test_then_the_system_s_where_we_may_write(self, tmp_path: Path) -> None:
        assert find(None, {}, system=tmp_path) == Home(tmp_path)

    def test_else_the_user_s(self, tmp_path: Path) -> None:
        assert find(None, {}, system=tmp_path / "absent") == Home(Path.home() / ".local/share/tflotilla")

    def test_a_relative_one_is_made_absolute_because_daemons_change_folder(self) -> None:
        assert find("here", {}).path.is_absolute()

    def test_its_folders_are_the_owner_s_alone(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "new")
        home.make()

        assert {path.stat().st_mode & 0o777 for path in (home.path, home.store, home.incoming, home.bundles)} == {0o700}
