"""pingmon-agent: the probe that runs on every host."""
