"""The segmenter of SOHES' self-instruction: masks, how sure it is of them, and which of them is an ancestor of which."""
