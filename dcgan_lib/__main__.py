"""``python -m dcgan_lib``, and the command ``dcgan``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C while PyTorch is still being imported ends it as quietly as later."""
    try:
        from dcgan_lib import cli
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130  # the shell's exit status for "ended by Ctrl-C"
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
