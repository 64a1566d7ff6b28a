"""The command line, and what looks at jobs from outside."""
