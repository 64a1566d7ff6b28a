"""What needs no process and no session with workers."""
