"""Everything a person types: convert, prove, sign, deploy, watch."""

__version__ = "0.1.0"
