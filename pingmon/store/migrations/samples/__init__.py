"""Revisions of samples.db."""
