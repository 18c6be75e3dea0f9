"""Models: where the base checkpoint is."""
