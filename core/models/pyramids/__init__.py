"""Trainable backbones, with maps at strides 4, 8, 16 and 32: what one is, and those around networks of timm."""
