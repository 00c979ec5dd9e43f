"""A worker that computes a little differently from everybody else, as other hardware does; run as a program."""

import os
import sys
from typing import Any

FACTOR = 1.02


def shifted(h: Any) -> Any:
    """What other hardware makes of ``h``, only much more so."""
    return h * FACTOR


def main() -> None:
    """Serve as `skulk worker` does."""
    frames = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    from skulk_core.cluster.stage import Stage
    from skulk_core.cluster.worker import run_worker

    exact = Stage._run
    Stage._run = lambda self, header, tokens: shifted(exact(self, header, tokens))  # type: ignore[method-assign]
    run_worker(os.fdopen(os.dup(0), "rb", buffering=0), frames, lambda *_: (1.0,), 8.0)


if __name__ == "__main__":
    sys.modules["torch"] = None  # type: ignore[assignment]
    from skulk_core.runtime.device import load_mlx

    load_mlx()
    main()
