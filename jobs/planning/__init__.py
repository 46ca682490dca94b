"""From a command line to steps: submissions, resources, site profiles, sweeps."""
