"""What runs a model file: torch, OpenVINO, ONNX Runtime, behind one small interface."""
