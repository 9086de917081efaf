"""Revisions of pingmon.db."""
