"""What `benchmarks/engine.py` measures, how a process measures it, and how the figures are laid out."""
