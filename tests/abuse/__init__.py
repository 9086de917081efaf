"""Abuse cases of docs/security.md against a real server program over TLS; each test is named by its number."""
