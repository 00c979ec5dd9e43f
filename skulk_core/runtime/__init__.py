"""What a process needs before it computes: where its files are, what the device is."""
