"""`python tests/soak.py --faults 50`: breaks rings in mid-text, at random, and compares with the unbroken text.

`skulk run demo` runs as a user runs it, over local workers, and where namespaces can be made (root on Linux, sshd)
over ssh hosts too. Workers are killed and stopped, ssh is killed, links are cut, each after a random number of
streamed bytes. A text passes if it is byte for byte what one host writes, ends with exit code 0, and leaves no
process, port or temporary file behind. Recovery times go to stdout, as a table or with --json as one object; progress
goes to stderr.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import netns
from cli_runner import Program
from fault_rings import DRIVEN_FAULTS, LOCAL_FAULTS, SSH_FAULTS, Fault, LocalRing, Ring, SshRing
from fault_texts import Recovery, broken_text

PROMPTS = (
    "The server handles each request in a separate thread. If",
    "In the morning the harbour was quiet, and the boats",
    "A list is sorted by comparing its neighbours. When",
)
_DEPTHS = ("0", "2", "4")
_FAULTS_PER_TEXT = 4


def main() -> int:
    """Exit code 1 if any text was not as it should be."""
    options = _options()
    dice = random.Random(options.seed)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skulk-soak-")))
        program = Program(home, "http://127.0.0.1:9")
        places = _places(stack, home, program, options.only)
        _say(f"seed {options.seed}; rings: {', '.join(ring.name for ring, _ in places)}")
        expected = {prompt: _unbroken(program, prompt, options.tokens) for prompt in PROMPTS}
        began_s = time.monotonic()
        recoveries, wrong, num_texts = _soak(places, expected, options, dice)
    answer = {
        "seed": options.seed,
        "tokens": options.tokens,
        "texts": num_texts,
        "faults": len(recoveries),
        "seconds": round(time.monotonic() - began_s, 1),
        "kinds": list(_kinds(recoveries)),
        "wrong": wrong,
        "recoveries": [asdict(recovery) for recovery in recoveries],
    }
    print(json.dumps(answer) if options.json else _table(answer, recoveries))
    return 1 if wrong or len(recoveries) < options.faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Break rings in mid-text and compare every text with the unbroken one."
    )
    parser.add_argument("--faults", type=int, default=50, help="faults that must be outlived (default: 50)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of kinds, victims and places")
    parser.add_argument("--tokens", type=int, default=500, help="length of each text (default: 500)")
    parser.add_argument("--only", choices=("local", "ssh"), help="local workers or ssh hosts alone")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def _places(stack: ExitStack, home: Path, program: Program, only: str | None) -> list[tuple[Ring, Sequence[Fault]]]:
    """Rings and what can happen to them."""
    places: list[tuple[Ring, Sequence[Fault]]] = []
    if only != "ssh":
        places.append((LocalRing(program), LOCAL_FAULTS))
    if only == "local":
        return places
    if lacking := netns.missing():
        if only == "ssh":
            sys.exit(f"no ssh hosts: {lacking}")
        _say(f"local workers alone: {lacking}")
        return places
    cluster = stack.enter_context(netns.Cluster(home / "hosts", num_hosts=2))
    cluster.write_hosts(home / "config")
    places.append((SshRing(cluster, program), SSH_FAULTS))
    places.append((SshRing(cluster, program, drives_only=True), DRIVEN_FAULTS))
    return places


def _unbroken(program: Program, prompt: str, num_tokens: int) -> bytes:
    finished = program.run("run", "demo", *_arguments(prompt, num_tokens))
    if finished.code != 0:
        sys.exit(f"one host alone fails: {finished.stderr}")
    return finished.stdout.encode()


def _arguments(prompt: str, num_tokens: int) -> list[str]:
    return [prompt, "--max-tokens", str(num_tokens), "--temperature", "0"]


def _soak(
    places: Sequence[tuple[Ring, Sequence[Fault]]],
    expected: dict[str, bytes],
    options: argparse.Namespace,
    dice: random.Random,
) -> tuple[list[Recovery], list[str], int]:
    """Texts until there were faults enough: those that came too late for their text are tried in another one."""
    recoveries: list[Recovery] = []
    wrong: list[str] = []
    texts = _texts(places, dice)
    num_texts = 0
    while len(recoveries) < options.faults and num_texts < 10 + options.faults:
        ring, faults = next(texts)
        faults = faults[: options.faults - len(recoveries)]
        prompt, depth = dice.choice(list(expected)), dice.choice(_DEPTHS)
        arguments = [*_arguments(prompt, options.tokens), "--draft-depth", depth]
        outcome = broken_text(ring, arguments, expected[prompt], faults, dice)
        num_texts += 1
        recoveries += outcome.recoveries
        wrong += [f"{ring.name}, depth {depth}, {prompt!r}: {what}" for what in outcome.wrong]
        for one in outcome.recoveries:
            _say(f"  {one.fault} ({one.broke}) at byte {one.after_nbytes}: {one.recovery_s:.1f} s, on {one.hosts}")
        late = f", too late for {', '.join(fault.name for fault in outcome.not_done)}" if outcome.not_done else ""
        state = "WRONG: " + outcome.wrong[0] if outcome.wrong else "the unbroken text, nothing left"
        _say(f"{len(recoveries)}/{options.faults} {ring.name}, depth {depth}: {state}{late}")
    return recoveries, wrong, num_texts


def _texts(places: Sequence[tuple[Ring, Sequence[Fault]]], dice: random.Random) -> Iterator[tuple[Ring, list[Fault]]]:
    """Without end: every ring in turn, with the next of its kinds in a random order, each as often as any other."""
    bags: list[list[Fault]] = [[] for _ in places]
    while True:
        for (ring, kinds), bag in zip(places, bags, strict=True):
            while len(bag) < _FAULTS_PER_TEXT:
                bag += dice.sample(kinds, len(kinds))
            taken = [bag.pop(0) for _ in range(_FAULTS_PER_TEXT)]
            # one lost host at most, and at the end, so that there is something left to break
            last = next((fault for fault in taken if fault.leaves_out), None)
            taken = [fault for fault in taken if not fault.leaves_out]
            yield ring, taken if last is None else [*taken, last]


def _kinds(recoveries: Sequence[Recovery]) -> Iterator[dict[str, object]]:
    for ring, fault in dict.fromkeys((one.ring, one.fault) for one in sorted(recoveries, key=lambda one: one.ring)):
        seconds = [one.recovery_s for one in recoveries if (one.ring, one.fault) == (ring, fault)]
        median_s, worst_s = statistics.median(seconds), max(seconds)
        yield {"ring": ring, "fault": fault, "n": len(seconds), "median_s": median_s, "worst_s": worst_s}


def _table(answer: dict[str, object], recoveries: Sequence[Recovery]) -> str:
    lines = ["| ring | fault | n | median s | worst s |", "|---|---|--:|--:|--:|"]
    lines += [
        f"| {kind['ring']} | {kind['fault']} | {kind['n']} | {kind['median_s']:.1f} | {kind['worst_s']:.1f} |"
        for kind in _kinds(recoveries)
    ]
    if recoveries:
        seconds = [one.recovery_s for one in recoveries]
        lines.append(f"| all | | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    wrong = answer["wrong"]
    assert isinstance(wrong, list)
    lines += ["", f"{answer['faults']} faults in {answer['texts']} texts, {len(wrong)} of them not as they should be."]
    return "\n".join([*lines, *map(str, wrong)])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
