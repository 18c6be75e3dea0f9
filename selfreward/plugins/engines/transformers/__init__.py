"""Hugging Face models in continuous batches."""
