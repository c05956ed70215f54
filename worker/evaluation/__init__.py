"""The proof: arms retrained with equal steps, their intervals, and the verdict in words."""
