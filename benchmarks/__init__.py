"""Measured comparisons with peers: `python -m benchmarks` runs them all, `--json` prints one object."""
