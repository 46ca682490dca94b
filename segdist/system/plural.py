"""Counts in messages: ``1 node``, ``2 nodes``."""

from __future__ import annotations


def count_noun(count: int, noun: str, plural: str | None = None) -> str:
    """``"1 node"``, ``"2 nodes"``; ``plural`` where that is not the noun with an s: ``"2 processes"``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
