"""Where jobs, tasks and attempts are kept: `store.Store`, and the two databases that are one."""
