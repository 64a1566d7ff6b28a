"""What happens in worker processes, pools, and between processes."""
