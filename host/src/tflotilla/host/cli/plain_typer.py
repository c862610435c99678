"""Import typer without the parts of rich it would use for help texts, which we print plainly.

They cost 80 ms, a third of what `tflotilla --help` takes, and put a backslash before [required]. Nothing else changes:
rich itself stays importable for the commands that draw with it.
"""

from __future__ import annotations

import sys

if "typer" not in sys.modules and "rich" not in sys.modules:
    # None in sys.modules is how Python itself says "not there" (importlib's documentation); typer then does without.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import typer.main
    finally:
        del sys.modules["rich"]
else:
    import typer.main

    vars(typer.core)["rich"] = None

__all__ = ["typer"]
