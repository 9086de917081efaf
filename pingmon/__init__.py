"""pingmon: the server."""
