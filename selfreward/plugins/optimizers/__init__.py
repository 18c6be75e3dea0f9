"""Optimizers (stage 5): how the next model is trained."""
