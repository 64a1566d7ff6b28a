"""A real notebook in a real browser."""
