"""Run everything that must hold, in order, and print one summary: ``make test`` and continuous integration call this.

Every step runs even after a failure, so that one run shows all there is to mend. The exit status is 1 if any failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
SANITIZE = ROOT / "tests" / "nbval_sanitize.cfg"

# Each worker takes whole files, as the tests of a file share what takes long to make.
WORKERS = ["--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
COMPARISON = [
    *(PYTHON, "-m", "pytest", "-q", "book", "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300"),
    *("--nbval-sanitize-with", str(SANITIZE)),
]
STEPS = {
    "style": [PYTHON, "-m", "ruff", "check", "."],
    "format": [PYTHON, "-m", "ruff", "format", "--check", "."],
    "stored outputs, one thread": [*COMPARISON, *WORKERS],
    "stored outputs, two threads": [*COMPARISON, *WORKERS],
    "tests": [PYTHON, "-m", "pytest", "-q", "--durations", "25", *WORKERS],
}
THREADS = {"stored outputs, one thread": "1", "stored outputs, two threads": "2", "tests": "1"}
"""Sums depend on how many threads share them; what the chapters print does not. Workers share the cores."""


def main() -> int:
    """Run the steps and return the exit status."""
    summary, failed = [], False
    for name, command in STEPS.items():
        print(f"\n== {name}: {' '.join(command[2:])}", flush=True)
        started = time.monotonic()
        threads = {"OMP_NUM_THREADS": THREADS[name]} if name in THREADS else {}
        status = subprocess.run(command, cwd=ROOT, env=os.environ | threads).returncode
        failed = failed or status != 0
        summary.append(f"{'failed' if status else 'passed'}  {name} ({time.monotonic() - started:.0f} s)")
    print("\n== summary", *summary, "everything passed" if not failed else "not everything passed", sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
