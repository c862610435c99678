"""What a board says of itself, read from trees of files that look like boards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tflotilla.device import facts
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import BoardFacts


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_raspberry_pi_is_recognized(tmp_path: Path) -> None:
    root = _write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/meminfo": "MemTotal:        3884348 kB\nMemFree:         2000000 kB\n",
            "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "run/systemd/system/.keep": "",
        },
    )

    board = facts.read(tmp_path, root=root, clock=lambda: 1700000000.0)

    assert board.time == 1700000000.0
    assert board.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.ram_bytes == 3884348 * 1024
    assert board.distribution == "Debian GNU/Linux 12 (bookworm)"
    assert board.systemd


def test_an_unusual_machine_still_reports(tmp_path: Path) -> None:
    """No /proc, no /sys, no os-release: a container stripped to nothing."""
    board = facts.read(tmp_path / "not" / "there" / "yet", root=tmp_path)

    assert board.model is None
    assert board.distribution is None
    assert board.ram_bytes == 0
    assert not board.systemd
    assert board.disk_free_bytes > 0
    assert board.cores >= 1


def test_facts_travel() -> None:
    board = facts.read(Path.home())

    document = codec.parse_json(codec.canonical_json(board), "facts")

    assert board == codec.decode(BoardFacts, document, "facts")


def test_the_runtimes_of_this_python_are_named_with_their_versions() -> None:
    """Against what Python's own metadata says, importing nothing."""
    import importlib.metadata

    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    expected = {name: installed[name] for name in ("tflite-runtime", "ai-edge-litert") if name in installed}

    assert expected
    assert expected == {offer.name: offer.version for offer in facts.runtimes()}


def test_a_runtime_that_is_not_installed_is_no_offer() -> None:
    assert facts.offer("tflotilla-no-such-runtime") is None


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ({"thermal_zone0": ("cpu-thermal", "48312")}, 48.312),
        ({"thermal_zone0": ("battery", "20000"), "thermal_zone1": ("soc-thermal", "61000")}, 61.0),
        ({"thermal_zone0": ("gpu-thermal", "40000"), "thermal_zone1": ("x86_pkg_temp", "55000")}, 55.0),
        ({"thermal_zone0": ("board", "33000")}, 33.0),
        ({"thermal_zone0": ("cpu-thermal", "-274000"), "thermal_zone1": ("board", "33000")}, 33.0),
        ({"thermal_zone0": ("cpu-thermal", "not a number")}, None),
        ({}, None),
    ],
    ids=["pi", "not the battery", "x86", "whatever there is", "implausible", "unreadable", "no sensor"],
)
def test_the_temperature_is_the_processors(
    tmp_path: Path, zones: dict[str, tuple[str, str]], expected: float | None
) -> None:
    for zone, (kind, reading) in zones.items():
        _write(tmp_path, {f"sys/class/thermal/{zone}/type": kind + "\n", f"sys/class/thermal/{zone}/temp": reading})

    assert expected == facts.temperature_c(tmp_path)


def test_memory_is_read_for_this_process_alone() -> None:
    ballast = b"x" * (32 << 20)

    assert facts.rss_bytes() > len(ballast)
    assert facts.peak_rss_bytes() >= facts.rss_bytes() * 0.9


def test_the_supervisor_may_read_facts_without_paying_for_numpy() -> None:
    code = (
        "import sys; from pathlib import Path; from tflotilla.device import choice, facts, reports;"
        "facts.read(Path('/')); facts.temperature_c();"
        "print(sorted({'numpy', 'PIL', 'subprocess', 'tflite_runtime', 'ai_edge_litert'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)

    assert done.stdout.strip() == "[]"
