"""Accuracy-aware int8."""
