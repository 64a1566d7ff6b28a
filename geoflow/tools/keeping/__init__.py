"""A store kept in order: what it holds and how much that is, and jobs that are not needed any more removed."""
