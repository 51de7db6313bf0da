"""The two towers of a CLIP of open_clip: images as features, and words as vectors in the same space."""
