"""fleet.toml: what it may hold, what is refused, what is written back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tests import sshd as real_sshd
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.shared.contract.agent_config import AgentConfig, InferenceConfig, MqttConfig, SourceConfig
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = """\
# Mine, hands off.
name = "garden"

[mqtt]
host = "broker.local"  # the big one
password_file = "secret"

[agent.inference]
num_threads = 2

[boards.pi-1]
host = "10.0.0.1"
labels = { room = "kitchen" }

# The one by the window.
[boards.pi-2]
host = "10.0.0.2"
user = "pi"

[boards.pi-2.agent.source]
kind = "folder"
path = "/srv/pictures of 'ours'"
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    (tmp_path / "fleet.toml").write_text(_TEXT)
    return Fleet.load(tmp_path / "fleet.toml")


def test_a_boards_agent_toml_merges_what_the_fleet_and_the_board_say(fleet: Fleet) -> None:
    config = fleet.agent_config("pi-2", home="/home/pi/x")

    assert config == AgentConfig(
        board="pi-2",
        fleet="garden",
        mqtt=MqttConfig(host="broker.local", password_file="/home/pi/x/mqtt-password"),
        inference=InferenceConfig(num_threads=2),
        source=SourceConfig(kind="folder", path="/srv/pictures of 'ours'"),
    )


def test_comments_survive_adding_and_removing_boards(fleet: Fleet) -> None:
    added = fleet.add("pi-3", BoardEntry(host="10.0.0.3", port=2222, labels={"a": 'quo"te'}), "[10.0.0.3]:2222 t k")
    removed = added.remove("pi-2")

    text = fleet.path.read_text()
    assert text.startswith("# Mine, hands off.\n")
    assert "# the big one" in text
    assert Fleet.load(fleet.path) == removed
    assert list(removed.boards) == ["pi-1", "pi-3"]
    assert removed.boards["pi-3"] == BoardEntry(host="10.0.0.3", port=2222, labels={"a": 'quo"te'})
    assert removed.agent == {"inference": {"num_threads": 2}}


def test_a_board_of_an_inline_table_can_be_removed_too(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('name="g"\n[boards]\na = { host = "h" }\nb = { host = "i" }\n')

    removed = Fleet.load(tmp_path / "fleet.toml").remove("a")

    assert list(removed.boards) == ["b"]
    assert Fleet.load(tmp_path / "fleet.toml") == removed


def test_the_pinned_key_goes_and_comes_with_its_board(fleet: Fleet) -> None:
    first = fleet.add("pi-3", BoardEntry(host="h"), "h ssh-ed25519 AAAA").add("pi-4", BoardEntry(host="i"), "i t BBBB")
    assert first.pinned("pi-3") == ("ssh-ed25519", "AAAA")

    second = first.remove("pi-3")

    assert second.pinned("pi-3") is None
    assert second.pinned("pi-4") == ("t", "BBBB")
    assert fleet.known_hosts.read_text() == "i t BBBB pi-4\n"


def test_facts_are_remembered_until_the_board_is_removed(fleet: Fleet) -> None:
    facts = facts_made.facts()
    assert fleet.facts("pi-1") is None
    fleet.save_facts("pi-1", facts)
    assert fleet.facts("pi-1") == facts

    fleet.remove("pi-1")

    assert fleet.facts("pi-1") is None

    # A full disk, a file where the folder is to be: no reason for a command to fail.
    (fleet.state / "facts").rmdir()
    (fleet.state / "facts").touch()
    fleet.save_facts("pi-1", facts)
    assert fleet.facts("pi-1") is None


def test_a_signing_key_becomes_the_signer_whom_the_boards_trust(tmp_path: Path) -> None:
    key = real_sshd.generate_key(tmp_path / "key")
    fleet = Fleet.create(tmp_path / "f" / "fleet.toml", name="garden", signing_key=key)

    kind, public, _comment = (tmp_path / "key.pub").read_text().split()
    assert fleet.allowed_signers().read_text() == f'garden namespaces="tflotilla-bundle" {kind} {public}\n'


def test_a_fleet_that_trusts_nobody_says_what_to_set(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match=r"\[signing\] key"):
        fleet.allowed_signers()


def test_the_brokers_password_is_read_from_the_file_that_fleet_toml_names(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match="secret: No such file"):
        fleet.mqtt_files()

    (fleet.folder / "secret").write_text("s3cret\n")

    assert fleet.mqtt_files() == {"mqtt-password": b"s3cret\n"}


def test_a_fleet_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no fleet file .*board add"):
        Fleet.load(tmp_path / "fleet.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'name' is missing"),
        ('name = "Bad Name"', "Bad Name"),
        ("name = ", "fleet.toml"),
        ('name="g"\n[boards.Pi]\nhost="h"', "board name 'Pi'"),
        ('name="g"\n[boards.pi]\nhots="h"', "unknown key 'hots'; did you mean 'host'"),
        ('name="g"\n[boards.pi]\nhost="-oProxyCommand=x"', "not a host name"),
        ('name="g"\n[boards.pi]\nhost="$(reboot)"', "not a host name"),
        ('name="g"\n[boards.pi]\nhost="h"\nuser="a b"', "not a login name"),
        ('name="g"\n[boards.pi]\nhost="h"\nport=70000', "1..65535"),
        ('name="g"\n[boards.pi]\nhost="h"\ninstall="docker"', '"auto", "user", "system"'),
        ('name="g"\n[agent.inference]\nnum_threads=0\n[boards.pi]\nhost="h"', "num_threads must be 1..64"),
        ('name="g"\n[agent.inferense]\nx=0\n[boards.pi]\nhost="h"', "did you mean 'inference'"),
        ('name="g"\n[agent]\nboard="x"\n[boards.pi]\nhost="h"', "can't be set"),
    ],
)
def test_what_is_wrong_in_the_fleet_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)

    with pytest.raises(ConfigError) as refused:
        Fleet.load(path)

    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_board_is_not_added_twice_nor_under_a_name_that_is_no_name(fleet: Fleet) -> None:
    with pytest.raises(UsageError, match="already"):
        fleet.add("pi-1", BoardEntry(host="h"), "h t k")
    with pytest.raises(UsageError, match="lower-case"):
        fleet.add("$(reboot)", BoardEntry(host="h"), "h t k")

    assert fleet.path.read_text() == _TEXT
