"""What a job would be and how long it would take, before it is run: `Session.plan` and `Session.probe`."""
