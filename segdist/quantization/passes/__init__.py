"""Small changes of an ONNX graph, before and after a quantizer; each takes a model and returns a changed copy."""
