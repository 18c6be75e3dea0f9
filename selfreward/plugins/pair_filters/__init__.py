"""Pair filters: which training rows are dropped after selection."""
