"""Scripts that run on a board without tflotilla's packages: standard library only, sent as text, never imported here.

`facts.py` must be read even by an ancient Python, so that it can be told that it is too old; `receive.py` runs only on
one that is new enough. `upgrade.py` stays on the board and changes its agent, so it depends on no environment. Each is
one file by itself: what two of them need stands in both.
"""

from __future__ import annotations

from importlib import resources


def script(name: str) -> bytes:
    """Return the source of one script (`facts`, `receive`, `upgrade`)."""
    return (resources.files(__package__) / f"{name}.py").read_bytes()
