"""Stages in which models write: completions of prompts, and texts about rows."""
