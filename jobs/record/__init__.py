"""What is written about a job: ``run.json``, the job's own folder, how it ended; plain data."""
