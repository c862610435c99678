"""`tflotilla fleet`, typed as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.host.fleet import conftest as boards
from tflotilla.host.fleet.inventory import contacts
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.shared.contract.messages import ServedBundle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sshd import Sshd

cache, home, board, fleet = boards.cache, boards.home, boards.board, boards.fleet

_TEXT = """\
name = "garden"  # mine

[groups.up]
boards = ["pi-2"]

[boards.pi-1]  # by the door
host = "10.0.0.1"
labels = { room = "kitchen" } # where

[boards.pi-2]
host = "10.0.0.2"
"""
_INVENTORY = """\
[kitchen]
pi-1 ansible_host=10.0.0.1 ansible_user=cook
Pi_3 ansible_port=2222
[kitchen:vars]
ansible_ssh_common_args=-o ProxyJump=bastion
[others]
win ansible_connection=winrm
"""


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "tflotilla.host", *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"TFLOTILLA_DEBUG": ""},
    )


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    folder = tmp_path / "garden"
    folder.mkdir()
    (folder / "fleet.toml").write_text(_TEXT)
    return folder


def test_an_import_changes_nothing_until_it_is_told_to(garden: Path) -> None:
    (garden / "hosts.ini").write_text(_INVENTORY)

    shown = _run(garden, "fleet", "import", "hosts.ini")
    untouched = (garden / "fleet.toml").read_text()
    done = _run(garden, "fleet", "import", "hosts.ini", "--write", "--json", "--label", "site=lab")
    again = _run(garden, "fleet", "import", "hosts.ini", "--write", "--label", "site=lab")

    assert shown.returncode == 0, shown.stderr
    assert "pi-3" in shown.stdout
    assert "would be added" in shown.stdout
    assert "user: - → cook" in shown.stdout
    assert "ansible_connection = winrm: only SSH is spoken here" in shown.stdout
    assert "1 new, 1 changed, 0 as they are, 1 left out; --write does it" in shown.stdout
    assert _TEXT == untouched
    document = json.loads(done.stdout)
    assert (["pi-3"], {"kitchen": ["pi-1", "pi-3"]}, True) == (
        list(document["added"]),
        document["joined"],
        document["written"],
    )
    loaded = Fleet.load(garden / "fleet.toml")
    assert {"room": "kitchen", "site": "lab"} == loaded.boards["pi-1"].labels
    assert ("cook", "bastion") == (loaded.boards["pi-1"].user, loaded.boards["pi-1"].jump)
    assert loaded.boards["pi-3"].port == 2222
    assert loaded.groups == {"up": ("pi-2",), "kitchen": ("pi-1", "pi-3")}
    text = (garden / "fleet.toml").read_text()
    assert all(comment in text for comment in ("# mine", "# by the door", "# where"))
    assert "0 new, 0 changed, 2 as they are, 1 left out" in again.stdout
    assert text == (garden / "fleet.toml").read_text()


def test_a_fleet_can_begin_with_an_import(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "boards.csv").write_text("name,host,room\npi-1,10.0.0.1,kitchen\n")

    shown = _run(work, "fleet", "import", "boards.csv")
    assert shown.returncode == 0, shown.stderr
    assert [work / "boards.csv"] == list(work.iterdir())

    done = _run(work, "fleet", "import", "boards.csv", "--write")
    assert done.returncode == 0, done.stderr
    assert "1 boards have no host key yet" in done.stderr
    assert ["pi-1"] == list(Fleet.load(work / "fleet.toml").boards)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("import",), 2, "name one source: a file, or --mdns"),
        (("import", "x.ini", "--mdns"), 2, "name one source"),
        (("import", "x.ini"), 3, "there is no x.ini"),
        (("import", "fleet.toml", "--accept-new", "--known-hosts", "x"), 2, "contradict"),
        (("list", "room=kitchen and"), 2, "character 17: something to pick is missing after 'and'"),
        (("list", "all", "--limit", "0"), 2, "at least one board"),
        (("show", "pi-9"), 2, "no board 'pi-9'; the fleet has pi-1, pi-2"),
        (("show", "pi-*"), 2, "no board 'pi-*'; the fleet has pi-1, pi-2"),
        (("label", "all", "room"), 2, "write key=value to set it"),
        (("pin", "all"), 2, "say where the keys come from"),
        (("export", "--format", "xml"), 2, "'xml' is not one of"),
        (("diff", "pi-9"), 2, "no board 'pi-9'"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    garden: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    refused = _run(garden, "fleet", *arguments)

    assert code == refused.returncode, refused.stderr
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert _TEXT == (garden / "fleet.toml").read_text()


def test_boards_are_listed_and_shown_with_what_is_remembered_of_them(garden: Path) -> None:
    state = garden / ".tflotilla"
    serving = ServedBundle(digest="a" * 64, name="digits", version="1.0.0", release=1)
    contacts.note(state, "pi-1", tried=100.0, reached=True, seen=100.0, agent="0.0.9", serving=serving, said=100.0)
    contacts.note(state, "pi-2", tried=100.0, reached=False, reason="pi-2 can't be reached")

    listed = _run(garden, "fleet", "list", "--json")
    table = _run(garden, "fleet", "list", "bundle=digits and online")
    limited = _run(garden, "fleet", "list", "--limit", "1")
    shown = _run(garden, "fleet", "show", "pi-1")
    off = _run(garden, "fleet", "show", "pi-2")
    differing = _run(garden, "fleet", "diff", "--exit-code")
    document = _run(garden, "fleet", "diff", "pi-1", "--json")

    first, second = json.loads(listed.stdout)["boards"]
    assert (True, False) == (first["online"], second["online"])
    assert (["up"], "digits") == (second["groups"], first["contact"]["serving"]["name"])
    assert "digits-1.0.0" in table.stdout
    assert "pi-2" not in table.stdout
    assert "pi-2" not in limited.stdout
    assert "digits-1.0.0 (aaaaaaaaaaaa)" in shown.stdout
    assert "not pinned; `tflotilla fleet pin pi-1`" in shown.stdout
    assert "pi-2 can't be reached" in off.stdout
    assert differing.returncode == 1
    assert "0.0.9, should be" in differing.stdout
    assert "never reported" in differing.stdout
    assert json.loads(document.stdout)["boards"][0]["agent"]["differs"]


def test_labels_change_where_they_stand(garden: Path) -> None:
    done = _run(garden, "fleet", "label", "all", "room-", "floor=1")

    assert done.returncode == 0, done.stderr
    assert "2 of 2 boards changed" in done.stdout
    expected = _TEXT.replace('{ room = "kitchen" }', '{ floor = "1" }')
    assert expected + 'labels = { floor = "1" }\n' == (garden / "fleet.toml").read_text()
    assert "0 of 2 boards changed" in _run(garden, "fleet", "label", "all", "floor=1").stdout


def test_an_export_names_key_files_so_that_they_are_found_from_anywhere(garden: Path) -> None:
    (garden / "fleet.toml").write_text(_TEXT.replace('host = "10.0.0.1"', 'host = "10.0.0.1"\nidentity = "keys/a"'))

    shown = _run(garden, "fleet", "export", "pi-1", "--json")

    assert str(garden / "keys" / "a") == json.loads(shown.stdout)["boards"]["pi-1"]["identity"]


def test_a_fleet_is_exported_to_a_file_or_to_stdout(garden: Path) -> None:
    shown = _run(garden, "fleet", "export", "pi-1", "--format", "csv")
    written = _run(garden, "fleet", "export", "--output", "boards.yml")
    back = _run(garden, "fleet", "import", "boards.yml")

    header = "name,host,port,user,identity,jump,python,install,groups,labels\n"
    assert f"{header}pi-1,10.0.0.1,,,,,python3,auto,,room=kitchen\n" == shown.stdout
    assert written.returncode == 0, written.stderr
    assert "0 new, 0 changed, 2 as they are, 0 left out" in back.stdout


@pytest.mark.sshd
def test_boards_get_their_host_keys_and_are_remembered_as_there_or_not(board: Sshd, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    key = board.client_key
    (work / "boards.csv").write_text(
        f"name,host,port,user,identity\npi-1,{board.host},{board.port},{board.user},{key}\npi-2,{board.host},1,,\n"
    )
    (work / "known").write_text(f"[{board.host}]:{board.port} {board.host_key.with_suffix('.pub').read_text()}")

    imported = _run(work, "fleet", "import", "boards.csv", "--write", "--known-hosts", "known")
    by_file = Fleet.load(work / "fleet.toml").pinned("pi-1")
    asked = _run(work, "fleet", "pin", "all", "--accept-new", "--replace", "--json")
    probed = _run(work, "board", "probe", "all")
    listed = _run(work, "fleet", "list", "--json")

    assert imported.returncode == 0, imported.stderr
    assert "pi-2 has no host key" in imported.stderr
    assert by_file is not None
    assert asked.returncode == 6
    assert ["pi-1"] == json.loads(asked.stdout)["pinned"]
    assert "Connection refused" in json.loads(asked.stdout)["missing"]["pi-2"]
    assert "pi-2" in probed.stdout
    there, off = json.loads(listed.stdout)["boards"]
    assert (True, None) == (there["online"], off["online"])
    assert there["facts_asked_at"] is not None

    board.stop()
    _run(work, "board", "probe", "pi-1")

    assert "pi-1" in _run(work, "fleet", "list", "offline").stdout
    assert "can't be reached" in contacts.contact(work / ".tflotilla", "pi-1").reason
