"""What Linux and the launcher's environment say: processes, cores, CPU, memory, ranks, signals, progress."""
