"""Score methods on held-out images: baselines, controls and the steered policy."""
