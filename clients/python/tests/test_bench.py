"""The bench runs, and accepts what it measures. What it prints is for people: no time is asserted."""

from __future__ import annotations

import pathlib
import subprocess
import sys

BENCH = pathlib.Path(__file__).resolve().parents[1] / "benches" / "check.py"


def test_the_bench_prints_what_a_check_costs():
    done = subprocess.run([sys.executable, BENCH, "3000", "300"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3,000 credentials, 300 rules") and done.stdout.count(" us ") == 5, done.stdout
