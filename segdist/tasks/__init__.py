"""One task each, from top to bottom, and the frame that leaves ``result.json``."""
