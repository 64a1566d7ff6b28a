"""What is stored, and what is read of it."""
