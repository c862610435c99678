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
