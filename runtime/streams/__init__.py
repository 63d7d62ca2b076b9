"""Frames in, results out: files, cameras, networks, and the threads between them."""
