"""The scripts that run on a bare board: what they read, and what they refuse to write."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tflotilla.host.fleet.agents import environments, onboard, service, systemd
from tflotilla.host.fleet.agents.bootstrap import launcher
from tflotilla.shared.contract import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANCIENT = ("python2.7", "python3.5", "python3.6", "python3.7", "python3.8", "python3.9")


def _ancient() -> Iterator[str]:
    for name in _ANCIENT:
        kept_apart = Path.home().glob(f".pyenv/versions/{name[6:]}*/bin/{name}")
        found = next(map(str, kept_apart), None) or shutil.which(name)
        if found is not None:
            yield found


_FOUND = tuple(_ancient())


def test_the_facts_script_holds_nothing_that_an_old_python_cannot_parse() -> None:
    tree = ast.parse(onboard.script("facts"), feature_version=(3, 4))

    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Nonlocal)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if f.returns or any(a.annotation for a in f.args.args)] == []


@pytest.mark.parametrize("python", _FOUND or [None])
def test_the_facts_script_runs_on_the_old_pythons_of_this_machine(python: str | None) -> None:
    if python is None:
        pytest.skip("this machine has no Python before 3.10")
    done = subprocess.run([python, "-"], input=onboard.script("facts"), capture_output=True, check=False)
    if done.returncode != 0 and b"pyenv" in done.stderr:
        pytest.skip("a stand-in for an interpreter that isn't there")

    mark, _space, document = done.stdout.decode().partition(" ")
    assert mark == "TFLOTILLA-FACTS", done.stderr
    assert json.loads(document)["facts"]["python"].startswith(Path(python).name[6:])


class _Board:
    """The receiving script with a home of its own, and somebody who speaks to it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def receive(
        self, archive: bytes, *, digest: str = "0" * 64, files: dict[str, bytes] | None = None
    ) -> dict[str, Any]:
        """Push one layer and files; return the last frame."""
        given = files or {}
        plan = {
            "home": str(self.home),
            "stale": "incoming/restart-pending",
            "upgrade": "1",
            "window_s": 60,
            "systemd": False,
            "layers": [
                {
                    "digest": digest,
                    "size": len(archive),
                    "sha256": hashlib.sha256(archive).hexdigest(),
                    "unpacked": 1000,
                    "packages": None,
                }
            ],
            "files": [
                {"name": name, "mode": 0o600, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in given.items()
            ],
        }
        done = subprocess.run(
            [sys.executable, "-I", "-c", onboard.script("receive").decode()],
            input=json.dumps(plan).encode() + b"\n" + archive + b"".join(given.values()),
            capture_output=True,
            check=False,
        )
        assert done.stdout, done.stderr
        last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return last


@pytest.fixture
def bare(tmp_path: Path) -> _Board:
    return _Board(tmp_path / "ground" / "a 'home' $(x)")


def _member(name: str, data: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:  # noqa: ANN401 - tar's fields
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as target:
        for info, data in members:
            target.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return gzip.compress(stream.getvalue())


def test_a_layer_arrives_whole_under_its_digest(bare: _Board) -> None:
    data = b"print()\n"
    digest = environments.layer_digest([("tflotilla/x.py", 0o644, hashlib.sha256(data).hexdigest())])

    last = bare.receive(_archive(_member("tflotilla/x.py", data)), digest=digest, files={"agent.toml": b"a"})

    assert last == {"changed": ["agent.toml", "switched"], "stale": True}
    assert (bare.home / layout.ENVIRONMENT / "tflotilla" / "x.py").read_bytes() == data
    assert (bare.home / layout.ENVIRONMENT).readlink() == Path("environments", digest)
    assert bare.home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "member",
    [
        _member("../escaped"),
        _member("/tmp/escaped-by-an-absolute-name"),  # noqa: S108 - it must not come to be
        _member("a/../../escaped"),
        _member("a//b"),
        _member("link", b"", type=tarfile.SYMTYPE, linkname="/etc"),
        _member("hard", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        _member("device", b"", type=tarfile.CHRTYPE),
        _member("pipe", b"", type=tarfile.FIFOTYPE),
        _member("line\nbreak"),
        _member("x" * 300),
    ],
    ids=lambda member: repr(member[0].name[:20]),
)
def test_a_member_that_is_no_plain_file_refuses_the_whole(bare: _Board, member: tuple[tarfile.TarInfo, bytes]) -> None:
    last = bare.receive(_archive(_member("good.py"), member))

    assert last["error"] == "VerificationError"
    assert list((bare.home / "environments").iterdir()) == []
    assert sorted(path.name for path in bare.home.parent.iterdir()) == [bare.home.name]
    assert not Path("/tmp/escaped-by-an-absolute-name").exists()  # noqa: S108


def test_content_that_is_not_what_the_digest_says_is_refused(bare: _Board) -> None:
    last = bare.receive(_archive(_member("good.py")))

    assert last["error"] == "VerificationError"
    assert list((bare.home / "environments").iterdir()) == []
    assert not (bare.home / layout.ENVIRONMENT).is_symlink()


def test_the_launcher_follows_the_environment_once_and_takes_wild_homes_as_they_are(tmp_path: Path) -> None:
    home = tmp_path / 'it\'s $(touch spoiled) "here"'
    package = home / "environments" / "e" / "tflotilla" / "device"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("import os, sys; print(os.environ['TFLOTILLA_HOME'], sys.argv[1:], __file__)")
    (package / "__init__.py").touch()
    (home / layout.ENVIRONMENT).symlink_to("environments/e")
    script = tmp_path / "agent"
    script.write_bytes(launcher(str(home), sys.executable))

    done = subprocess.run(["sh", str(script), "run", "a b"], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.stdout == f"{home} ['run', 'a b'] {package}/__main__.py\n", done.stderr
    assert not list(tmp_path.rglob("spoiled"))


def test_a_launcher_without_environment_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", launcher(str(tmp_path), sys.executable).decode()], capture_output=True, text=True, check=False
    )

    assert done.returncode == 7
    assert "board bootstrap" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"), [(layout.SYSTEMD_UNIT, systemd.UNIT), (layout.UPGRADE_UNIT, systemd.UPGRADE)]
)
def test_the_shipped_units_are_those_that_bootstrap_writes(name: str, text: str) -> None:
    shipped = Path(__file__).resolve().parents[4] / "deploy" / "systemd" / name

    assert shipped.read_text() == text


@pytest.mark.parametrize(
    ("name", "unit_text"), [(layout.SYSTEMD_UNIT, systemd.UNIT), (layout.UPGRADE_UNIT, systemd.UPGRADE)]
)
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, name: str, unit_text: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    # The program it names is on boards, not here.
    text = unit_text
    for program in (layout.LAUNCHER, layout.UPGRADER):
        text = text.replace(f"{layout.SYSTEM_HOME}/{program} run", "/bin/true run")
    unit = tmp_path / name
    unit.write_text(text)

    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

    complaints = [line for line in done.stderr.splitlines() if name in line]
    assert complaints == []


class _Shell:
    """A board's shell with stand-ins for crontab, getent and systemctl that note what they are asked."""

    def __init__(self, folder: Path, account_home: Path) -> None:
        self.home = folder / "it's home"
        self.tab = folder / "tab"
        self.calls = folder / "calls"
        programs = folder / "bin"
        for path in (self.home, programs):
            path.mkdir(parents=True)
        self._path = f"{programs}:/usr/bin:/bin"
        scripts = {
            "crontab": f'cd "{folder}"; [ "$1" = -l ] && exec cat tab; cat >tab.new && mv tab.new tab',
            "getent": f'echo "me:x:1:1::{account_home or self.home}:/bin/sh"',
            "systemctl": f'echo "$@" >>"{self.calls}"',
        }
        for name, text in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.home), "PATH": self._path}
        return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)

    def agent(self) -> Path:
        home = self.home / layout.USER_HOME
        (home / "bin").mkdir(parents=True)
        (home / layout.LAUNCHER).write_text(f'#!/bin/sh\necho "$@" >>"{self.calls}"\n')
        (home / layout.LAUNCHER).chmod(0o755)
        return home


def test_a_board_without_systemd_gets_one_line_of_cron_beside_its_own(tmp_path: Path) -> None:
    shell = _Shell(tmp_path, tmp_path / "it's home")
    shell.tab.write_text("5 * * * * mine\n")
    home = shell.agent()
    (home / "stale").touch()
    script = service.start(str(home), by_systemd=False, restart=False, stale="stale", timeout_s=60)

    first, second = shell.run(script), shell.run(script)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    mine, ours = shell.tab.read_text().splitlines()
    assert mine == "5 * * * * mine"
    assert ours.startswith("@reboot ")
    assert shell.calls.read_text() == "start --timeout 60\nstart --timeout 60\n"
    assert not (home / "stale").exists()
    # What cron would run at the next boot.
    assert shell.run(ours.removeprefix("@reboot ")).returncode == 0
    assert shell.calls.read_text() == "start --timeout 60\nstart --timeout 60\nstart\n"

    purged = shell.run(service.purge("user"))

    assert purged.returncode == 0, purged.stderr
    assert shell.tab.read_text() == "5 * * * * mine\n"
    assert not home.exists()


def test_an_agent_that_can_t_be_stopped_is_killed_before_it_is_removed(tmp_path: Path) -> None:
    """Its environment may be broken: then its own launcher can't run to stop it."""
    shell = _Shell(tmp_path, tmp_path / "home")
    home = shell.agent()
    (home / layout.LAUNCHER).write_text("#!/bin/sh\necho environment is missing >&2\nexit 7\n")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "tflotilla"]) as guard:
        (home / layout.GUARD_PID).write_text(f"{guard.pid}\n")

        purged = shell.run(service.purge("user"))

        assert purged.returncode == 0, purged.stderr
        assert guard.wait(30) == -signal.SIGKILL
    assert not home.exists()


def test_a_home_that_is_not_the_accounts_own_leaves_its_crontab_alone(tmp_path: Path) -> None:
    shell = _Shell(tmp_path, tmp_path / "another")
    shell.tab.write_text("5 * * * * mine\n")
    home = shell.agent()

    shell.run(service.start(str(home), by_systemd=False, restart=True, stale="stale", timeout_s=60))

    assert shell.tab.read_text() == "5 * * * * mine\n"
    assert shell.calls.read_text() == "stop\nstart --timeout 60\n"


@pytest.mark.parametrize(
    ("restart", "calls"),
    [
        (True, ["daemon-reload", f"enable --quiet {layout.SYSTEMD_UNIT}", f"restart {layout.SYSTEMD_UNIT}"]),
        (False, [f"enable --quiet {layout.SYSTEMD_UNIT}", f"start {layout.SYSTEMD_UNIT}"]),
    ],
)
def test_with_systemd_the_unit_is_enabled_and_restarted_only_after_a_change(
    tmp_path: Path,
    restart: bool,  # noqa: FBT001
    calls: list[str],
) -> None:
    shell = _Shell(tmp_path, tmp_path)

    shell.run(
        service.start("/var/lib/tflotilla", by_systemd=True, restart=restart, stale="no-such-marker", timeout_s=60)
    )

    assert shell.calls.read_text().splitlines() == calls
