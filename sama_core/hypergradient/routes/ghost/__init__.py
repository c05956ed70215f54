"""Route 1: the directional derivatives out of the base step's own forward and backward pass."""

from sama_core.hypergradient.routes.ghost.coverage import explain_refusal
from sama_core.hypergradient.routes.ghost.recording import GhostRecording, retained_bytes
from sama_core.hypergradient.routes.ghost.route import GhostRoute
from sama_core.hypergradient.routes.ghost.trial import verify

__all__ = ["GhostRecording", "GhostRoute", "explain_refusal", "retained_bytes", "verify"]
