"""The ground both programs stand on: messages, limits, codes. Needs nothing but the standard library."""
