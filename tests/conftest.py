"""Every test process loads MLX the way the programs do: with its BLAS in front."""

from skulk_core.runtime.device import load_mlx

load_mlx()
