"""The tests: one folder for each part; `helpers` has what several use."""
