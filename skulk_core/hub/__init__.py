"""Reading the Hub and checkpoints on disk: names, headers, downloads, model cards. No mlx."""
