"""States and results as a text table, and for TensorBoard."""
