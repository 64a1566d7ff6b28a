"""What can be seen of a store: rows, snapshots, frames, SQL."""
