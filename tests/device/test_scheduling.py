"""Inference is not interrupted by those who report it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has batch processes")

_CHILD = "from tflotilla.device import scheduling; scheduling.be_prompt(); import os; print(os.sched_getscheduler(0))"
_PARENT = f"""
import os, subprocess, sys
from tflotilla.device import scheduling
scheduling.stand_back()
print(os.sched_getscheduler(0), flush=True)
subprocess.run([sys.executable, "-c", {_CHILD!r}], check=True)
"""


def test_who_stands_back_is_a_batch_process_and_its_child_need_not_be() -> None:
    done = subprocess.run([sys.executable, "-c", _PARENT], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(os.SCHED_BATCH), str(os.SCHED_OTHER)]


_BOUND = """
import os, sys, threading
from tflotilla.device import scheduling
from tflotilla.shared.contract.errors import BoardError
try:
    scheduling.bind(tuple(int(number) for number in sys.argv[1:]))
except BoardError as error:
    print(error)
thread = threading.Thread(target=lambda: print(sorted(os.sched_getaffinity(0))))
thread.start()
thread.join()
"""


def _bind(*processors: int) -> list[str]:
    words = [sys.executable, "-c", _BOUND, *map(str, processors)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_process_and_its_threads_stay_on_the_processors_they_are_bound_to() -> None:
    last = max(os.sched_getaffinity(0))

    assert _bind(last) == [f"[{last}]"]
    assert _bind() == [str(sorted(os.sched_getaffinity(0)))]


def test_a_processor_that_is_not_there_is_said_and_nothing_changes() -> None:
    here = ", ".join(map(str, sorted(os.sched_getaffinity(0))))

    said, left = _bind(1023)

    assert said.startswith("inference.affinity: processor 1023 is not to be had on this board (")
    assert said.endswith(f"; have {here}")
    assert left == f"[{here}]"
