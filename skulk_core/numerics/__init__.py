"""Arithmetic that MLX has, in forms that are fast where MLX's own is not. No model, no layer."""
