"""What the help of the verbs says at its end, in a terminal and in a notebook."""

from __future__ import annotations

EXAMPLES = """\
JOB_TYPE is a built-in job type (hello_world, list_container_contents), a Python file such as jobs.py, one of several
job types in it, as in jobs.py:tile_stats, or a module such as package.module. A file or module has its job types in the
dict ALL_JOBS, and their handlers in ALL_HANDLERS.

A value is JSON where it can be read as JSON (n=3, strict=true, bands=[1,2]), True, False, None or a list in Python's
spelling, and text where it is none of these (folder=data). To have it taken as text all the same, """
IN_TERMINAL = "put it into double quotes that reach the command: 'name=\"3\"'."
IN_NOTEBOOK = """\
quote it: name="3". $name is the notebook's variable, the object itself: tile=$tile. %%geoflow run JOB_TYPE takes
parameters from the rest of the cell, as JSON or YAML."""
EXIT_CODES = """\
\b
exit codes:
  0    the job completed; for a verb that only looks: it was shown
  1    the job failed, was cancelled, or has not ended; doctor or check found a problem
  2    nothing was done: a bad command, job type, parameter, job id or store
  3    the job completed with errors: its finalize failed, or tasks did that it
       went on without (see geoflow status)
  130  interrupted; the job was put back, and geoflow resume goes on with it
       (143 for SIGTERM, 129 for SIGHUP), with --load FILE where its type is in a file
"""
RULES = """\
What a verb finds is its value: df = %geoflow tasks 3fa9. A job shows itself. $name stands for a variable of the
notebook, a job in one too: %geoflow errors $job. A semicolon at the end shows nothing, and # begins a comment.

The verbs use the session that was opened last in this kernel, by geoflow.open or by the first geoflow.run (on
GEOFLOW_STORE, or geoflow.db). --store and --workers change to a session on that store, or with so many workers, which
knows the same job types and is used from then on."""
