"""Selectors (stage 4): which answers are trained on."""
