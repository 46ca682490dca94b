"""What became of a run: the scheduler's word and the files as one state."""
