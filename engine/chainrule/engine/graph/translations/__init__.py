"""What each operation of the engine is in ONNX."""
