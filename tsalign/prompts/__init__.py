"""Prompts for models, and parsers for their answers."""
