"""Tests of pages, API and sign-in: over the real application without sockets, and in a real browser (`e2e`)."""
