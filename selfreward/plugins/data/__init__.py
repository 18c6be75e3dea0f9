"""Data: seed prompts, human answers and held-out sets."""
