"""What is seen and clicked in a notebook."""
