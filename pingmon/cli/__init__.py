"""Commands of `pingmon`, one file per noun."""
