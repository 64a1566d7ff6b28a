"""What drives jobs."""
