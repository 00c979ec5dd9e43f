"""Bytes that a plan needs, bytes that a host has, and which layers go where. No mlx: headers and numbers alone."""
