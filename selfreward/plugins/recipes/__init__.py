"""Recipes: which rounds come before the loop, and how often it runs."""
