"""Run directories, the stage ledger, and how stages are run once."""
