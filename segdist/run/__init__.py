"""The run folder: paths, result schema, durable writes, exit codes, the lease, how a step starts."""
