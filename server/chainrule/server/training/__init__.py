"""Training itself: what a step is, who computes it, and how its parts come together. Plain classes; `placement` alone
knows Ray."""
