"""One rank's process: it loads its part, joins the ring, and decides or serves until the launcher lets go of it."""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from skulk_core.cluster.assignment import Assignment, Shard, read_assignment
from skulk_core.cluster.backends import Backend
from skulk_core.cluster.control import Control
from skulk_core.cluster.frames import START_MARKER
from skulk_core.errors import MemoryFull, RingError, SkulkError
from skulk_core.runtime.device import device_facts, load_mlx, versions
from skulk_core.runtime.memory_limit import is_out_of_memory

if TYPE_CHECKING:
    from skulk_core.cluster.deciding import Instrument

EXIT_FAILED = 1
# How the decider measures rounds for `--draft-depth auto`; what does it stands above this package.
Measure = Callable[..., Sequence[float]]
# Makes what else it measures, by name, once MLX may be imported.
MakeInstruments = Callable[[], Mapping[str, "Instrument"]]


def run_worker(
    stdin: BinaryIO, stdout: BinaryIO, measure: Measure, lease_s: float, instruments: MakeInstruments = dict
) -> None:
    """Serve one epoch; returns never: the process ends when ``stdin`` does, or with an error that was told before."""
    stdout.write(START_MARKER)
    stdout.flush()
    control = Control(stdin, stdout, lease_s)
    control.start()
    try:
        _serve(control, measure, instruments)
    except MemoryFull as full:
        _wait_to_be_ended(control, full)
    except SkulkError as error:
        # what to do next is said where the person is, and may need them
        fields = {name: value for name, value in vars(error).items() if isinstance(value, str)}
        control.say("failed", error=type(error).__name__, message=str(error), fields=fields)
    except RuntimeError as error:
        # MLX says so of its operations, the ring's among them
        if is_out_of_memory(error):
            _wait_to_be_ended(control, MemoryFull())
        traceback.print_exc()
        control.say("failed", error="RuntimeError", message=str(error).splitlines()[0] if str(error) else "no reason")
    except Exception as error:  # noqa: BLE001
        # nobody foresaw it: told all the same, and no thread of MLX is waited for
        traceback.print_exc()
        control.say("failed", error=type(error).__name__, message=str(error) or type(error).__name__)
    sys.stderr.flush()
    os._exit(EXIT_FAILED)


def _wait_to_be_ended(control: Control, full: MemoryFull) -> None:
    """Tell that this rank cannot go on, and keep its connections: a neighbour's broken ring must not be heard first."""
    control.say("full", needed=full.needed_nbytes, left=full.left_nbytes)
    while True:
        control.next()


def _serve(control: Control, measure: Measure, instruments: MakeInstruments) -> None:
    control.say("hello", pid=os.getpid(), versions=versions())
    assignment = read_assignment(_expect(control, "plan"))
    load_mlx()
    # before anything imports MLX it must have its BLAS
    from skulk_core.cluster.joining import Reserved, join
    from skulk_core.cluster.keepalive import keep_asking, when_unanswered
    from skulk_core.cluster.links import Links
    from skulk_core.cluster.stage_loading import load_stage
    from skulk_core.decode.room import Room
    from skulk_core.runtime.memory_limit import limit_memory

    limit = limit_memory(assignment.memory_nbytes)
    reserved = Reserved(assignment.address)
    control.at_once("reach", lambda frame: _reach(control, frame["address"]))
    control.say("reserved", port=reserved.port, tried_port=reserved.tried_port)
    loaded = load_stage(
        assignment,
        lambda what, done, total: control.say("loading", what=what, done=done, total=total),
        lambda identity: control.say("found", config=identity.config, files=dict(identity.files)),
    )
    room = Room(loaded.passes, limit)
    facts = device_facts()
    control.say(
        "loaded",
        nbytes=loaded.model.nbytes,
        drafter=vars(loaded.facts),
        device={"backend": facts.backend.value, "name": facts.name, "available_nbytes": facts.available_nbytes},
    )
    control.at_once("peak", lambda frame: control.say("peaked", nbytes=_peak_nbytes(reset=frame["reset"])))
    if assignment.size == 1:
        reserved.release()
        control.at_once("count", lambda frame: control.say("counted", messages=0, nbytes=0))
        _work(control, assignment, loaded, None, room, measure, instruments)
    ring = _expect(control, "ring")
    reserved.release()
    group, sockets = join(assignment.backend, ring["settings"], ring["files"], f"{reserved.address}:{reserved.port}")
    if assignment.backend == Backend.RING:
        keep_asking(sockets)
        when_unanswered(sockets, lambda: _end_unanswered(control))
    links = Links(group, sockets, patient=assignment.patient)
    control.at_once("count", lambda frame: control.say("counted", messages=links.messages, nbytes=links.nbytes))
    control.say("joined")
    _work(control, assignment, loaded, links, room, measure, instruments)


def _reach(control: Control, address: str) -> None:
    """Try to connect to the next rank, while others are listened to and weights are read."""
    from skulk_core.cluster.reaching import why_unreached

    work = threading.Thread(target=lambda: control.say("reached", why_not=why_unreached(address)), daemon=True)
    work.start()


def _end_unanswered(control: Control) -> None:
    """The main thread sits in a receive that nothing ends."""
    control.say("failed", error=RingError.__name__, message="[ring] a neighbour acknowledges nothing any more")
    os._exit(EXIT_FAILED)


def _peak_nbytes(*, reset: bool) -> int:
    """The most that MLX held since the last reset."""
    mx = load_mlx()
    nbytes = int(mx.get_peak_memory())
    if reset:
        mx.reset_peak_memory()
    return nbytes


def _work(
    control: Control,
    assignment: Assignment,
    loaded: Any,
    links: Any,
    room: Any,
    measure: Measure,
    instruments: MakeInstruments,
) -> None:
    from skulk_core.cluster.deciding import Decider
    from skulk_core.cluster.lap import RingExchange
    from skulk_core.cluster.stage import Stage
    from skulk_core.decode.exchange import Alone, Exchange

    target = loaded.model.target
    exchange: Exchange = Alone(target)
    if assignment.shard is Shard.TENSOR:
        exchange = _tensor_parallel(target, links, assignment, room)
    elif not assignment.decides:
        Stage(target, links, assignment.epoch, room).serve()
    elif assignment.size > 1:
        exchange = RingExchange(target, links, assignment.epoch)
    Decider(control, loaded, exchange, room, measure, instruments()).serve()


def _tensor_parallel(target: Any, links: Any, assignment: Assignment, room: Any) -> Any:
    """The decider's exchange; on every other rank this serves for ever."""
    from skulk_core.cluster.tensor import Follower, TensorExchange
    from skulk_core.decode.exchange import Alone

    if not assignment.decides:
        Follower(target, links, assignment.epoch, room).serve()
    return Alone(target) if links is None else TensorExchange(target, links, assignment.epoch)


def _expect(control: Control, kind: str) -> dict[str, Any]:
    frame = control.next()
    assert frame["kind"] == kind, f"{frame['kind']} where {kind} was due"
    return frame
