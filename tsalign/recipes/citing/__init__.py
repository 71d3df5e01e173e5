"""CITING: a teacher writes rubrics and revisions (arXiv 2310.02527)."""
