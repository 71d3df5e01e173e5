"""A session: runs driven from a notebook or any other Python process, locally or on a cluster."""

from tsalign.session.session import Session

__all__ = ["Session"]
