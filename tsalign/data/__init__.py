"""Prompts, tokens, shards: what stages read and write."""
