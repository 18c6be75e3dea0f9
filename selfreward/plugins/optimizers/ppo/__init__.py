"""Proximal policy optimization, by a trainer of ours: TRL has none any more."""
