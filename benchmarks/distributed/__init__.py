"""What `benchmarks/training.py` measures: training on several processes, ours and PyTorch's."""
