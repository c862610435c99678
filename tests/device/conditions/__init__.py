"""The board's state: trees of boards' files in, readings and verdicts out."""
