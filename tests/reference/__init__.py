"""Slow, obvious oracles that the fast code is tested against."""
