"""Finished stages as artifacts: keys, files, reuse."""
