"""Scores, test-time augmentation, latency, overlays and saved predictions."""
