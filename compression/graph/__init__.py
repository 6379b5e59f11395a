"""ONNX in, ONNX out: export of a parent, and exact rewrites of the graph."""
