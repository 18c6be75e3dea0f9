"""Evaluators: they measure a model and train nothing."""
