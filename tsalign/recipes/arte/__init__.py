"""ARTE: aligning a teacher with what helps its student (arXiv 2406.19227)."""
