"""Engines on an NVIDIA GPU: their session, and the pipeline that keeps frames and masks on the device."""
