"""Frozen feature extractors: what one is, the vision transformers of timm, and the hand-made descriptor."""
