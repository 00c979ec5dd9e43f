"""Every test process loads MLX the way the programs do: with its BLAS in front."""

import atexit
import os
import shutil
import signal
import tempfile

from skulk_core.runtime.device import load_mlx

if "SKULK_TEST_HOME" not in os.environ:
    # once a test run, its workers inherit it: costs measured under tests, and settings of whoever runs them, stay apart
    home = os.environ["SKULK_TEST_HOME"] = tempfile.mkdtemp(prefix="skulk-tests-")
    os.environ |= {"XDG_CACHE_HOME": f"{home}/cache", "XDG_CONFIG_HOME": f"{home}/config"}
    atexit.register(shutil.rmtree, home, ignore_errors=True)

# a run in the background of a script, or under nohup, ignores signals that tests send; programs they start inherit it
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

load_mlx()
