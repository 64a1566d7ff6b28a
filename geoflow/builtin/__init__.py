"""Job types that every installation has, to try it with and to learn from."""
