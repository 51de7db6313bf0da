"""Weights: where they come from, what is in a file, and whether it is a model's."""
