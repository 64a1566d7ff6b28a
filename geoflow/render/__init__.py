"""Snapshots as HTML and text: pure."""
