"""Clusters: the manifests that start them, rendered from one file of parameters."""
