"""What the meta level learns, one kind a file."""
