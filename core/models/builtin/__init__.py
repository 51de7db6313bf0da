"""The network that comes with ovskit: its layers, its weights, and the extractor that stands on both."""
