"""What must be identical at both ends: the contract, the inference code and the statistics."""

__version__ = "0.1.0"
