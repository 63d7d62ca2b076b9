"""A stand-in for pycuda whose device memory is the host's. Names and arguments are those of pycuda 2026.1."""
