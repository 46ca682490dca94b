"""The parts of a training: step, loss, optimizer, EMA, DDP, SyncBN, state, checkpointer."""
