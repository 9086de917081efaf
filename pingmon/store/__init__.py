"""What is kept: the directory (ORM) and the rounds (packed rows)."""
