"""Distributed training, evaluation and int8 quantization of street-scene segmentation nets on Xeon clusters."""

__version__ = "0.2.0.dev0"
