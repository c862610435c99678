"""Boards from tables, from ssh's configuration, and from what mDNS hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import zeroconf

from tflotilla.host.fleet.importing import mdns, ssh_hosts, table
from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut
from tflotilla.host.fleet.importing.mdns import Announced
from tflotilla.host.fleet.lines import ssh_config
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_table_has_a_board_on_each_line_and_labels_in_columns_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "boards.csv").write_text(
        "\ufeffName;Host;Port;User;Groups;Labels;room\n"
        "# the old ones\n"
        'pi-1;10.0.0.1;2222;pi;a b;"x=1 y=2";kitchen\n'
        ";;;;;;\n"
        "Pi 2;10.0.0.2;;;;;\n"
    )

    found = table.read(tmp_path / "boards.csv")

    labels = {"x": "1", "y": "2", "room": "kitchen"}
    expected = (
        Candidate(
            name="pi-1",
            origin="pi-1",
            table={"host": "10.0.0.1", "user": "pi", "port": 2222, "labels": labels},
            groups=("a", "b"),
        ),
        Candidate(name="pi-2", origin="Pi 2", table={"host": "10.0.0.2"}, notes=("Pi 2 becomes pi-2",)),
    )
    assert expected == found.candidates
    assert () == found.left_out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("pi-1,h,ssh", "line 2: port 'ssh' is no port"),
        ("pi-1,-h,22", "line 2: host '-h' is not a host name"),
        ("pi-1,h,70000", "line 2: port must be 1..65535"),
        ("pi-1,h,22,docker", "line 2: install must be auto, user or system"),
        ("pi-1,h,22,user,a b", "line 2: label 'a': write key=value"),
        ("pi-1,h,22,user,a=b,c,d", "line 2: it has 7 cells, the header 6"),
        (",,22", "line 2: it names neither a board nor a host"),
        ("---,h,22", "line 2: no board name can be made of '---'"),
    ],
)
def test_a_line_that_is_no_board_is_left_out_with_its_number(line: str, reason: str) -> None:
    found = table.parse(f"name,host,port,install,labels,room\n{line}\ngood,g,,,,\n", "t.csv")

    assert ["good"] == [each.name for each in found.candidates]
    assert reason in found.left_out[0].reason


def test_columns_for_people_are_passed_over_and_told() -> None:
    found = table.parse(
        '# a, "b" c\nname,host,room,Serial No\npi-1,h1,"by the\r\n#2 door",77\n\npi-2,h2,hall,78\n,h3,"a\nb",\n-,,,\n',
        "t.csv",
    )

    expected = (
        Candidate(name="pi-1", origin="pi-1", table={"host": "h1"}, notes=("room can't be a label: 'by the #2 door'",)),
        Candidate(name="pi-2", origin="pi-2", table={"host": "h2", "labels": {"room": "hall"}}),
        Candidate(name="h3", origin="h3", table={"host": "h3"}, notes=("room can't be a label: 'a b'",)),
    )
    assert expected == found.candidates
    assert (LeftOut(origin="-", reason="line 9: no board name can be made of '-'"),) == found.left_out
    assert ("column 'serial no' is passed over: it can't be a label",) == found.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv holds no table"),
        ("pi-1,10.0.0.1\n", "the first line must name the columns"),
        ("name,name\n", "column 'name' stands there twice"),
        ('name,host\npi-1,"h\n', "t.csv, line 2: "),
    ],
)
def test_a_table_without_a_usable_header_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        table.parse(text, "t.csv")

    assert said in str(refused.value)


_CONFIG = """\
Host pi-1 Pi_2 *.lan !nobody
    User pi
Host=pi-1
    HostName 10.0.0.1
    Port 2222
    IdentityFile ~/.ssh/pi
    ProxyJump me@bastion
Include more/*.conf
    Compression yes
Host proxied
    ProxyCommand nc %h %p
Match exec "touch %d/ran"
    User evil
"""


def _written(home: Path) -> Path:
    (home / ".ssh" / "more").mkdir()
    (home / ".ssh" / "more" / "a.conf").write_text("Host included\n  HostName 10.0.0.9\n  Port 2022\n")
    (home / ".ssh" / "config").write_text(_CONFIG)
    return home / ".ssh" / "config"


def test_of_ones_own_ssh_configuration_the_aliases_are_enough(home: Path) -> None:
    found = ssh_hosts.read(_written(home))

    expected = [("pi-1", "pi-1"), ("pi-2", "Pi_2"), ("included", "included"), ("proxied", "proxied")]
    assert expected == [(each.name, each.table["host"]) for each in found.candidates]
    assert [{"host": "pi-1"}] == [each.table for each in found.candidates if each.name == "pi-1"]
    assert not (home / "ran").exists()


def test_of_another_file_what_it_says_is_written_down(home: Path, tmp_path: Path) -> None:
    _written(home)
    (tmp_path / "boards.conf").write_text(_CONFIG)

    found = ssh_hosts.read(tmp_path / "boards.conf")

    tables = {each.name: each.table for each in found.candidates}
    assert {
        "host": "10.0.0.1",
        "port": 2222,
        "user": "pi",
        "identity": str(home / ".ssh" / "pi"),
        "jump": "me@bastion",
    } == tables["pi-1"]
    assert ["proxied"] == [each.origin for each in found.left_out]
    assert not (home / "ran").exists()


def test_what_is_included_counts_when_connecting_too(home: Path) -> None:
    _written(home)

    (home / ".ssh" / "config").write_text(_CONFIG.partition("Match")[0])
    config = ssh_config.load()

    included = config.lookup("included")
    assert ("10.0.0.9", "2022") == (included["hostname"], included["port"])
    assert config.lookup("pi-1")["compression"] == "yes"
    assert ("[10.0.0.9]:2022", "[included]:2022") == ssh_config.addresses(config, "included", None)


def test_files_that_include_each_other_are_refused_in_one_line(home: Path) -> None:
    (home / ".ssh" / "config").write_text("Include config\nHost a\n")

    with pytest.raises(InputError, match="Include goes deeper than 16 files"):
        ssh_hosts.read(home / ".ssh" / "config")


def test_what_was_heard_becomes_candidates_that_this_machine_can_reach() -> None:
    heard = (
        Announced(server="pi-1.local", addresses=("10.0.0.1",), port=22),
        Announced(server="Pi_2.local", addresses=("10.0.0.2", "fe80::2"), port=2222),
        Announced(server="ghost.local", addresses=()),
    )

    found = mdns.reading(heard, resolves=lambda host: host == "pi-1.local")

    note = "Pi_2.local isn't found by this machine (libnss-mdns); its address may change"
    expected = (
        Candidate(
            name="pi-2",
            origin="Pi_2.local",
            table={"host": "10.0.0.2", "port": 2222},
            notes=("Pi_2 becomes pi-2", note),
        ),
        Candidate(name="pi-1", origin="pi-1.local", table={"host": "pi-1.local"}),
    )
    assert expected == found.candidates
    assert [LeftOut(origin="ghost.local", reason="it told no address, and its name isn't found")] == list(
        found.left_out
    )


def test_boards_that_announce_themselves_are_heard() -> None:
    """A real announcement over multicast on this machine's loopback."""
    try:
        network = zeroconf.Zeroconf(interfaces=["127.0.0.1"])
    except OSError as error:
        pytest.skip(f"this machine has no multicast: {error}")
    ours: Any = {"server": "tf-pi.local.", "parsed_addresses": ["127.0.0.1"]}
    services = [
        zeroconf.ServiceInfo(mdns.WORKSTATION, f"tf-pi [b8:27:eb:0:0:1].{mdns.WORKSTATION}", port=9, **ours),
        zeroconf.ServiceInfo(mdns.SSH, f"tf-pi.{mdns.SSH}", port=2222, **ours),
    ]
    with network:
        for service in services:
            network.register_service(service, cooperating_responders=True)

        heard = mdns.listen(timeout_s=1.5, interfaces=["127.0.0.1"])

    heard_of_it = [each for each in heard if each.server == "tf-pi.local"]
    assert [Announced(server="tf-pi.local", addresses=("127.0.0.1",), port=2222)] == heard_of_it
