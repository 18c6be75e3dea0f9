"""Samplers (stage 2): where the answers come from."""
