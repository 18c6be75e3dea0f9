"""Engines: how a model is run to write text."""
