"""One call of the code under test, in a process of its own. The last line on stdout is its outcome as JSON."""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skulk_core.errors import SkulkError
from skulk_core.hub.model_card import base_models
from skulk_core.hub.refs import RepoRef, parse_model
from skulk_core.hub.snapshot import fetch_assistant, fetch_head, fetch_model, fetch_sidecar


def main(what: str, name: str) -> None:
    progress: list[tuple[str, int, int | None]] = []

    def on_progress(description: str, num_bytes_done: int, num_bytes_total: int | None) -> None:
        progress.append((description, num_bytes_done, num_bytes_total))

    answer: dict[str, Any]
    try:
        if what == "chain-of-folder":
            answer = asdict(base_models(Path(name)))
        else:
            ref = parse_model(name)
            assert isinstance(ref, RepoRef), ref
            if what == "chain":
                answer = asdict(base_models(ref))
            else:
                fetch = {
                    "model": fetch_model,
                    "sidecar": fetch_sidecar,
                    "assistant": fetch_assistant,
                    "head": fetch_head,
                }[what]
                snapshot = fetch(ref, on_progress)
                answer = {"path": str(snapshot.path), "repo": snapshot.repo, "sha": snapshot.sha}
    except SkulkError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps({**answer, "progress": progress}))


if __name__ == "__main__":
    # a shell that starts the tests in the background has every process below it ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:])
