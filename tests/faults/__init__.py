"""Faults, injected: what the whole must survive without losing, doubling or changing a sample (`make faults`)."""
