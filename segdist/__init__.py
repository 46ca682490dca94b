"""Distributed training, evaluation and int8 quantization of street-scene segmentation nets on Xeon clusters."""

__version__ = "0.1.0"
