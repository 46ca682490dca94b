"""What differs between machines: ranks, cores, collectives, precision."""
