"""The teacher of PAD in the toy world."""
