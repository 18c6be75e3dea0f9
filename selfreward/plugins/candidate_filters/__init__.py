"""Candidate filters: which answers are dropped before they are judged."""
