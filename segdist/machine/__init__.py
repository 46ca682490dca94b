"""What this machine does best: what was measured on it, remembered, and what is taken where nothing was."""
