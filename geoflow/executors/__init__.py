"""Where tasks run: one protocol, and the executors that speak it."""
