"""What `benchmarks/engine.py` measures in single processes, how they measure it, and how the figures are laid out."""
