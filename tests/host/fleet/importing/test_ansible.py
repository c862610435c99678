"""Ansible's inventories: read as Ansible reads them, which is asked itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tflotilla.host.fleet.importing import ansible
from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut
from tflotilla.shared.contract.errors import InputError

_TRICKY_INI = """\
# comment
; another
lonely ansible_user="the 'user'" number=007 flag=True text=yes items_='[1, 2]' # end
10.0.0.9:2222 ansible_port=2223
[fe80::1]:2022
fe80::2

[web]   # the web
pi[01:03].lan
pi[a:c]-[1:2] ansible_host=10.0.0.1 quoted='a "b" c' hash=a#b
odd[1:9:4]
shared one=1

[db-1]
shared one=2 two=2
other

[web:vars]
ansible_user = web # not a comment but a value
from = web
depth=web
equals=a=b=c

[site:children]
web
db-1

[site:vars]
from=site
depth=site
only_site="quoted site"
nothing=None
table={'a': 1}

[late:children]
later

[later]
zz

[all:vars]
from=all
everywhere=1
ansible_python_interpreter=/usr/bin/python3

[prio_a]
shared
[prio_b]
shared
[prio_a:vars]
ansible_group_priority=10
winner=a
[prio_b:vars]
winner=b
"""

_TRICKY_YAML = """\
all:
  vars:
    from: all
  hosts:
    lonely:
    "pi[1:2].lan":
      ansible_port: 2222
    "10.0.0.7:2022":
  children:
    web:
      hosts:
        "web[08:10]":
          x: 1
        shared: {a: [1, 2], b: {c: d}}
      vars: {from: web, yes_: yes, oct: 0755}
    site:
      children:
        web:
        db:
          hosts: onlyone
      vars:
        from: site
        ratio: 0.5
    empty:
db:
  vars:
    late: true
"""


def _ansible(path: Path) -> dict[str, Any]:
    """Ask the real ansible-inventory."""
    program = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("ansible-core is not installed (group test)")
    config = path.parent / "empty.cfg"
    config.touch()
    done = subprocess.run(
        [program, "-i", str(path), "--list"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=path.parent,
        env=os.environ | {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_CONFIG": str(config), "LC_ALL": "C.UTF-8"},
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _members(document: dict[str, Any], group: str) -> set[str]:
    table = document.get(group, {})
    return set(table.get("hosts", ())).union(*(_members(document, child) for child in table.get("children", ())))


def _assert_the_same(path: Path) -> None:
    theirs = _ansible(path)
    ours = ansible.load(path)
    variables = {host: found for host, _groups, found in ours.variables()}
    groups = {host: set(names) for host, names, _found in ours.variables()}

    expected = {host: theirs["_meta"]["hostvars"].get(host, {}) for host in _members(theirs, "all")}
    assert expected == variables
    named = [name for name in theirs if name not in ("_meta", "all", "ungrouped")]
    for name in named:
        assert _members(theirs, name) == {host for host, names in groups.items() if name in names}, name


def test_an_ini_inventory_means_what_ansible_says_it_means(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(_TRICKY_INI)

    _assert_the_same(tmp_path / "hosts.ini")


def test_a_yaml_inventory_means_what_ansible_says_it_means(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(_TRICKY_YAML)

    _assert_the_same(tmp_path / "hosts.yml")


def test_variables_beside_the_inventory_go_over_those_in_it_as_ansible_says(tmp_path: Path) -> None:
    files = {
        "hosts.ini": _TRICKY_INI,
        "group_vars/all.yml": "from: all file\ndepth: all file\n",
        "group_vars/web": "from: web file\nothers: [1]\n",
        "group_vars/site/a.yml": "from: site file a\na: 1\n",
        "group_vars/site/b.yaml": "from: site file b\nb: 1\n",
        "group_vars/site/.hidden.yml": "hidden: 1\n",
        "group_vars/db-1.json": '{"json": 1}',
        "group_vars/db-1.yaml": "yaml: 1",
        "host_vars/shared.yml": "one: from file\n",
        "host_vars/lonely/x.yml": "nested: {deep: true}\n",
        "host_vars/nobody.yml": "x: 1\n",
        "host_vars/pi01.lan": "ansible_user: special\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    _assert_the_same(tmp_path / "hosts.ini")


def test_a_folder_of_inventories_is_one_inventory(tmp_path: Path) -> None:
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "01-hosts").write_text("[web]\na from=ini\nb\n")
    (folder / "02-more.yml").write_text("web:\n  hosts:\n    c:\n    a: {from: yaml}\n  vars: {x: 1}\n")
    (folder / "group_vars" / "web.yml").write_text("beside: yes\n")
    (folder / "README.md").write_text("[web]\nnot-a-host\n")
    (folder / ".hidden").write_text("not-a-host\n")
    (folder / "old.bak").write_text("not-a-host\n")

    _assert_the_same(folder)


def test_what_ansible_inventory_printed_is_an_inventory_too(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(_TRICKY_INI)
    (tmp_path / "listing.json").write_text(json.dumps(_ansible(tmp_path / "hosts.ini")))

    ours, again = ansible.load(tmp_path / "hosts.ini"), ansible.load(tmp_path / "listing.json")

    assert sorted(map(repr, ours.variables())) and sorted(ours.hosts) == sorted(again.hosts)  # noqa: PT018 - one claim
    assert {h: sorted(g) for h, g in ours.memberships().items()} == {
        h: sorted(g) for h, g in again.memberships().items()
    }


_FULL = """\
pi_1.Kitchen ansible_host=10.0.0.1 ansible_port=2222 ansible_user=pi ansible_ssh_private_key_file=keys/pi room=kitchen
pi-2 ansible_ssh_host=10.0.0.2 ansible_private_key_file=~/.ssh/id ansible_python_interpreter=/usr/bin/python3.11
pi-3 ansible_host="{{ inventory_hostname }}.{{ domain }}" domain=lan ansible_python_interpreter=auto_silent
pi-4 ansible_ssh_common_args='-o ProxyCommand="ssh -W %h:%p -q -p 2200 me@bastion" -o StrictHostKeyChecking=no'
pi-5 ansible_ssh_extra_args='-J one,two' ansible_password=secret
"""


def test_what_a_host_says_becomes_a_boards_table(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(_FULL + "[Group-1:children]\nsub\n[sub]\npi-2\n")

    found = ansible.read(tmp_path / "hosts", label_variables=["room"])

    expected = (
        Candidate(
            name="pi-1-kitchen",
            origin="pi_1.Kitchen",
            table={
                "host": "10.0.0.1",
                "port": 2222,
                "user": "pi",
                "identity": str(tmp_path / "keys" / "pi"),
                "labels": {"room": "kitchen"},
            },
            notes=("pi_1.Kitchen becomes pi-1-kitchen",),
        ),
        Candidate(
            name="pi-2",
            origin="pi-2",
            table={"host": "10.0.0.2", "identity": "~/.ssh/id", "python": "/usr/bin/python3.11"},
            groups=("Group-1", "sub"),
        ),
        Candidate(name="pi-3", origin="pi-3", table={"host": "pi-3.lan"}),
        Candidate(
            name="pi-4",
            origin="pi-4",
            table={"host": "pi-4", "jump": "me@bastion:2200"},
            notes=("ssh's StrictHostKeyChecking isn't used",),
        ),
    )
    assert expected == found.candidates[:4]
    assert [LeftOut(origin="pi-5", reason="jump 'one,two' is not [user@]host[:port]")] == list(found.left_out)


def test_of_two_names_for_one_thing_the_older_one_counts_as_ansible_does(tmp_path: Path) -> None:
    """`ansible old -m raw -a id -vvv` says `CONNECTION FOR USER: old`, and goes to 10.0.0.1."""
    (tmp_path / "hosts").write_text(
        "old ansible_ssh_host=10.0.0.1 ansible_ssh_port=1 ansible_ssh_user=old\n"
        "[all:vars]\nansible_host=10.0.0.2\nansible_port=2\nansible_user=new\n"
    )

    (found,) = ansible.read(tmp_path / "hosts").candidates

    assert {"host": "10.0.0.1", "port": 1, "user": "old"} == found.table


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("win ansible_connection=winrm", "only SSH is spoken here"),
        ("here ansible_connection=local", "only SSH is spoken here"),
        ("a ansible_host=\"{{ lookup('env', 'X') }}\"", "only plain variables are filled in"),
        ('a ansible_host="{{ nowhere }}"', "nowhere is not known"),
        ('a ansible_host="{{ ansible_host }}"', "ansible_host is not known"),
        ("a ansible_host=-oProxyCommand=x", "not a host name"),
        ("a ansible_user='a b'", "not a login name"),
        ("a tflotilla_install=docker", "install must be auto, user or system"),
        ("a ansible_port=ssh", "is no port"),
        ("a ansible_port=99999", "1..65535"),
        ("a ansible_host='[1]'", "ansible_host is list, not a text"),
        ("--- a=b", "is not a host"),
        ("a b", "must be name=value"),
    ],
)
def test_a_host_that_cant_be_a_board_is_left_out_and_told_or_refused_with_its_line(
    tmp_path: Path, line: str, reason: str
) -> None:
    (tmp_path / "hosts").write_text(f"good\n{line}\n")

    try:
        found = ansible.read(tmp_path / "hosts")
    except InputError as error:
        said = str(error)
        assert f"{tmp_path / 'hosts'}:2: " in said
    else:
        assert ["good"] == [each.name for each in found.candidates]
        (left,) = found.left_out
        said = left.reason
    assert reason in said


def test_of_names_that_become_the_same_the_one_that_needs_no_change_stays(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("Pi_1\npi-1\n")

    found = ansible.read(tmp_path / "hosts")

    assert ["pi-1"] == [each.origin for each in found.candidates]
    assert [LeftOut(origin="Pi_1", reason="its name would be pi-1, which is that of 'pi-1'")] == list(found.left_out)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("hosts.ini", "[a:vars]\nx=1\n", "hosts.ini:1: [a:vars] names group 'a', which is nowhere declared"),
        ("hosts.ini", "[a:children]\nb\n", "hosts.ini:2: [a:children] names group 'b'"),
        ("hosts.ini", "[a:children]\nb\n[b:children]\na\n", "stands below itself"),
        ("hosts.ini", "[a:odd]\n", "hosts.ini:1: section [a:odd] is none of"),
        ("hosts.ini", "[a b]\n", "section [a b] can't be read"),
        ("hosts.ini", "pi[01:3]\n", "must be equally long"),
        ("hosts.ini", "pi[1:]\n", "a range is [begin:end]"),
        ("hosts.ini", "pi[5:1]\nok\n", None),
        ("hosts.ini", "pi[1:99999999]\n", "makes no hosts, or too many"),
        ("hosts.ini", "p[1:999][1:999]\n", "makes more than 100000 hosts"),
        ("hosts.ini", "a:99999\n", "the port must be 1..65535"),
        ("hosts.ini", "'a\n", "hosts.ini:1: No closing quotation"),
        ("hosts.yml", "all:\n  hosts: [a]\n", "all.hosts: a mapping is expected, not list"),
        ("hosts.yml", "all: {hosts: {a: [1]}}", "all.hosts.a: a mapping is expected"),
        ("hosts.yml", "- a\n", "an inventory is a mapping of groups, not list"),
        ("hosts.yml", "a: [", "hosts.yml: line 1, column 5"),
        ("hosts.yml", "plugin: aws_ec2\n", "configures an inventory plugin"),
        ("hosts.yml", "all: !!python/object/apply:os.system [x]\n", "hosts.yml: line 1"),
        ("hosts.yml", "a: &a [*a]\n", None),
        ("hosts.ini", "\xff", None),
    ],
)
def test_an_inventory_that_cant_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, said: str | None
) -> None:
    (tmp_path / name).write_text(text)
    if said is None:
        ansible.read(tmp_path / name)
        return

    with pytest.raises(InputError) as refused:
        ansible.read(tmp_path / name)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_programs_are_not_run(tmp_path: Path) -> None:
    script = tmp_path / "inventory.py"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)

    with pytest.raises(InputError, match="is a program; `ansible-inventory -i"):
        ansible.read(script)
    assert not (tmp_path / "ran").exists()


def test_vaulted_values_stay_closed_and_are_told(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        "all:\n  hosts:\n    a: {ansible_host: !vault '$ANSIBLE_VAULT;1.1;AES256 00'}\n    b: {x: !unsafe '{{ y }}'}\n"
    )
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all").write_text("$ANSIBLE_VAULT;1.1;AES256\n0011\n")

    found = ansible.read(tmp_path / "hosts.yml")

    assert ["b"] == [each.name for each in found.candidates]
    assert [LeftOut(origin="a", reason="ansible_host is vaulted, not a text")] == list(found.left_out)
