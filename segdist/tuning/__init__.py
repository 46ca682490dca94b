"""Real training steps, timed: the ranks that do them when told to, and who tells them."""
