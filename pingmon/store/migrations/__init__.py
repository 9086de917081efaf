"""Alembic's home: one environment, one folder of revisions for each database."""
