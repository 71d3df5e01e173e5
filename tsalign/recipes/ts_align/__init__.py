"""TS-Align (arXiv 2405.20215)."""
