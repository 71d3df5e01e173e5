"""What a run did, read from its directory: summaries, tables and plots."""
