"""What the exit codes of every command mean; 0 is done, 128 + n is the end by signal n."""

from __future__ import annotations

USAGE_ERROR = 2
"""Exit code of a command that refuses its options, files or settings."""

GOAL_MISSED = 3
"""Exit code of a quantization that missed its accuracy goal; the best model is kept."""

TO_BE_CONTINUED = 75
"""Exit code of a training that stopped on a signal after it saved: start it again, and it goes on (EX_TEMPFAIL)."""
