"""Who waits for whom on a board's few cores: inference goes on, the rest runs when a core is free or its turn has come.

A worker that hands a batch over wakes its supervisor; on a core they share the kernel would let the one that wakes cut
in, and an inference pays for JSON, disk and network. A batch process still gets its share, only not that privilege.
"""

from __future__ import annotations

import contextlib
import os


def stand_back() -> None:
    """Let this process, and threads and children it starts, never interrupt others by waking up."""
    _schedule("SCHED_BATCH")


def be_prompt() -> None:
    """Take the ordinary place again, which a child of one that stands back has lost."""
    _schedule("SCHED_OTHER")


def _schedule(policy: str) -> None:
    # Not everywhere to be had, and nothing depends on it: sandboxes refuse the call, other systems don't know it.
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
