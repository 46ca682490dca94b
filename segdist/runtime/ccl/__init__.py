"""oneCCL as a backend of torch.distributed for CPU tensors: ``register()``, then ``new_group(backend="segdist_ccl")``.

Relies on PyPI's oneccl-cpu and impi-rt, and on the shim that ``python -m segdist.runtime.ccl.build`` compiles.
"""
