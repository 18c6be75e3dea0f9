"""The embedded micro world: a tiny language with a true score, and M0, a tiny real model that speaks it."""
