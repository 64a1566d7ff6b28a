"""What tests of several modules use."""
