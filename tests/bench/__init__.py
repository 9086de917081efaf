"""`make bench-probe` and `make bench-accuracy`: what the agent costs and how true its times are, beside its peers."""
