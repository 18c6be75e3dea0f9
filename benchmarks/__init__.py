"""Measurements of what users feel: ratios in one run, never bare seconds. ``python -m benchmarks.<name> [--quick]``."""
