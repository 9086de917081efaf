"""What is decided. No Flask, no socket here; the clock is handed in."""
