"""The ideas, one per file: attention, the disentangled non-local block, resizing. Knows only Paddle."""
