"""`python -m tflotilla.device` is `tflotilla-agent`."""

import sys

from tflotilla.device.cli import main

sys.exit(main())
