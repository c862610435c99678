"""Scripts that run on a board before tflotilla is there: standard library only, sent as text, never imported here.

`facts.py` must be read even by an ancient Python, so that it can be told that it is too old; `receive.py` runs only on
one that is new enough.
"""

from __future__ import annotations

from importlib import resources


def script(name: str) -> bytes:
    """Return the source of one script (`facts`, `receive`)."""
    return (resources.files(__package__) / f"{name}.py").read_bytes()
