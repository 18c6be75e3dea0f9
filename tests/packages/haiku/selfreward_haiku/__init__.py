"""Judges answers by the shape of a haiku."""
