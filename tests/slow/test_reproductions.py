"""Published figures, reproduced by the command; those that train for long are left to whoever writes the page."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests import catalogue
from tflotilla.host.reproductions.catalogue import CASES

pytestmark = [pytest.mark.slow, pytest.mark.catalogue, pytest.mark.timeout(1800)]
#: Minutes of training each, and a speed that a busy machine can't show.
LEFT_OUT = ("vgg16-pruned", "mnist-pruned", "mobilenet-v2-speed", "resnet-v2-101")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("reproduce"))


@pytest.mark.parametrize("name", [name for name in CASES if name not in LEFT_OUT])
def test_a_published_figure_holds(name: str, work: str) -> None:
    data = str(catalogue.path("."))

    done = subprocess.run(
        [sys.executable, "-m", "tflotilla.host", "reproduce", name, "--data", data, "--work", work, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr if done.returncode else "")
    (found,) = json.loads(done.stdout)
    assert found["holds"]
    assert [row for row in found["rows"] if row["holds"]]
