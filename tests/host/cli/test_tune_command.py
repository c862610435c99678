"""`tflotilla tune`, typed as a person types it: a real agent measures, and what was found is deployed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.fleet import conftest as boards
from tests.host.fleet.test_push import make_bundle
from tflotilla.host.fleet import push, tuned
from tflotilla.host.fleet.agents import bootstrap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sshd import Sshd
    from tflotilla.host.fleet.inventory.fleet import Fleet

cache, home, board, fleet, warm = boards.cache, boards.home, boards.board, boards.fleet, boards.warm
#: So short that a test may wait for it: what is fastest is not the point here.
QUICK = ("--threads", "1", "--affinity", "none", "--affinity", "auto", "--min-seconds", "0.02", "--max-seconds", "1")


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tflotilla.host", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env=os.environ | {"TFLOTILLA_DEBUG": ""},
    )


def _document(*arguments: object) -> dict[str, Any]:
    done = _run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.sshd
def test_what_is_found_is_deployed_and_done_again_when_the_kernel_changes(warm: Sshd, fleet: Fleet) -> None:
    assert warm.home.is_dir()
    bootstrap.bootstrap("pi-1", fleet)
    bundle, given = make_bundle(fleet), ("--fleet", fleet.path)

    # The bundle is measured, and serves only afterwards.
    found = _document("tune", "pi-1", "--bundle", bundle.path, *QUICK, "--leave-cores", 0, *given)

    (kind,) = found["types"]
    assert (kind["tuned_on"], kind["boards"], found["errors"]) == ("pi-1", ["pi-1"], {})
    assert {entry["configuration"]["inference"]["xnnpack"] for entry in kind["ranking"]} == {True, False}
    correct = [entry["cell"]["measurement"]["correctness"] for entry in kind["ranking"]]
    assert all(each["goldens"] == each["goldens_total"] > 0 for each in correct)
    record = tuned.load(fleet.state)[0]
    assert record.pick
    assert record.bundle == bundle.digest

    (outcome,) = _document("deploy", bundle.path, "pi-1", *given)["boards"]

    assert outcome["tuning"].startswith("as tuned on pi-1: ")
    state = push.status("pi-1", fleet).state
    assert state is not None
    assert state.inference == record.configuration.inference

    again = _document("tune", "pi-1", *QUICK, "--stale", *given)
    assert again["types"] == []
    assert again["fresh"][0]["boards"] == ["pi-1"]

    _pretend_another_kernel(fleet)
    (outcome,) = _document("deploy", bundle.path, "pi-1", *given)["boards"]
    assert outcome["tuning"].startswith("not as tuned: found on kernel 2.6.32, now it is ")
    shown = _run("tune", "pi-1", *QUICK, "--stale", *given)
    assert shown.returncode == 0, shown.stderr
    assert "the pick" in shown.stdout
    assert "kept for pi-1: " in shown.stderr
    assert tuned.load(fleet.state)[0].kernel == record.kernel


def _pretend_another_kernel(fleet: Fleet) -> None:
    import dataclasses

    records = tuned.load(fleet.state)
    shutil.rmtree(fleet.state / tuned.FOLDER)
    tuned.save(fleet.state, [dataclasses.replace(record, kernel="2.6.32") for record in records])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-p99", "soon"), "--max-p99 must be like 30ms or 0.5s, not 'soon'"),
        (("--max-p99", "0ms"), "--max-p99 must be above 0"),
        (("--max-rss", "-1"), "--max-rss must be like 120MiB or 1GiB, not '-1'"),
        (("--threads", "0"), "--threads: 0 is not between 1 and 64"),
        (("--runtimes", "onnx"), "--runtimes must be auto or some of tflite-runtime, ai-edge-litert, not 'onnx'"),
        (("--xnnpack", "maybe"), "--xnnpack is on, off or both, not 'maybe'"),
        (("--delegate", "lib.so:fast"), "--delegate must be none or LIBRARY[:KEY=VALUE…], not 'lib.so:fast'"),
        (("--affinity", "first"), "--affinity must be none or processors like 0,1 or 2-3, not 'first'"),
        (("--batch", "0"), "--batch must be 1..1024, not 0"),
        (("--min-seconds", "9", "--max-seconds", "3"), "--min-seconds must be 0..3, not 9"),
        (("--cool-to", "500"), "--cool-to must be 1..120, not 500"),
        (("--max-other-cpu", "-1"), "--max-other-cpu must be 0..100000, not -1"),
        (("--timeout", "0"), "--timeout must be above 0"),
        (("--timeout", "nan"), "--timeout must be above 0"),
    ],
)
def test_what_makes_no_sense_is_one_line_before_any_board_is_asked(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('name = "garden"\n[boards.pi-1]\nhost = "127.0.0.1"\nport = 1\n')

    done = _run("tune", "all", *options, "--fleet", fleet)

    assert done.returncode == 2, done.stderr
    assert done.stderr == f"tflotilla: {said}\n"


def test_a_board_that_nobody_knows_yet_and_that_is_off_is_unreachable(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('name = "garden"\n[boards.pi-1]\nhost = "127.0.0.1"\nport = 1\n')
    state = tmp_path / ".tflotilla"
    state.mkdir()
    (state / "known_hosts").write_text("")

    done = _run("tune", "all", "--fleet", fleet)

    assert done.returncode in (5, 6), done.stderr
    assert "pi-1" in done.stderr
    assert "Traceback" not in done.stderr
