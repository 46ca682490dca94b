"""Run folders as one HTML page; reads files only."""
