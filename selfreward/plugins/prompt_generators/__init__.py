"""Prompt generators (stage 1): where the instructions come from."""
