"""Where jobs, tasks and attempts are kept: one protocol, and the stores that speak it."""
