"""The step-level engine: rows at any step, of any request, with any adapters, through one forward pass."""
