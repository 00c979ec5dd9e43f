"""Measured arms, side by side in one run, and what isolated costs predict of them."""
