"""``python -m dcgan_lib``: the same as the command ``dcgan``."""

import sys

from dcgan_lib.cli import main

sys.exit(main())
