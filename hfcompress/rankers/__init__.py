"""Rankers, which score pairs: PyTorch, ONNX Runtime, OpenVINO and BM25 behind one protocol."""
