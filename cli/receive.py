"""`skulk receive`: puts in place what another `skulk` has copied here. Started by it, not by people."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import guarded


@guarded
def receive_command(folder: Annotated[str, typer.Argument(help="Where the files are.")]) -> None:
    """Verify the files announced on stdin, and say in a frame on stdout which are lacking."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from skulk_core.cluster.frames import START_MARKER, read_frame, write_frame
    from skulk_core.cluster.receiving import Announced, receive
    from skulk_core.errors import FileError

    answer.write(START_MARKER)
    frame = read_frame(os.fdopen(os.dup(0), "rb", buffering=0))
    if frame is None:
        return
    files = {name: Announced(int(one["nbytes"]), str(one["sha256"])) for name, one in frame["files"].items()}
    said: dict[str, Any]
    try:
        place = Path(folder).expanduser()
        said = {"kind": "lacking", "folder": str(place), "files": receive(place, files, frame["texts"])}
    except FileError as error:
        said = {"kind": "error", "message": str(error)}
    write_frame(answer, said)
