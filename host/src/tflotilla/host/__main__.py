"""`python -m tflotilla.host` is the same as `tflotilla`."""

from tflotilla.host.cli import main

main()
