"""The process that measures one cell of a benchmark: `python -m tflotilla.device.benchmark`."""
