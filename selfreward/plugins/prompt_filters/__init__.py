"""Prompt filters: which instructions are dropped before they are answered."""
