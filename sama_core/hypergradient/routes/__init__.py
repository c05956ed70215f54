"""The routes to directional derivatives of the per-example losses, one a file."""
