"""Two models compared, without an alignment run."""
