"""Judges (stage 3): what an answer is worth."""
