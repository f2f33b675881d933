"""Everything that scores pairs: PyTorch, ONNX Runtime and OpenVINO behind one protocol."""
