"""A trained model as a folder that runs by itself, on a machine that has neither this suite nor torch."""
