"""What measures the parts of rounds and splits the time of texts: in this process, or at the decider of a ring.

The decider's answers are asked for by name, with JSON both ways: `at_decider` serves what `RingInstruments` asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from skulk_core.bench.costs import Costs, measure_costs, read_costs
from skulk_core.bench.facts import conventions_record
from skulk_core.bench.profile import profile_text
from skulk_core.bench.workload import ArmSpec, Check, Local, Workload
from skulk_core.cluster.deciding import AtDecider, Instrument
from skulk_core.cluster.engine import ClusterEngine
from skulk_core.cluster.wire import AUTO, read_sampling, sampling_frame
from skulk_core.decode.engine import LocalEngine
from skulk_core.formats.receipt import Profile
from skulk_core.formats.receipt_facts import PromptsRecord
from skulk_core.formats.statement import record_file
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler
from skulk_core.types import Exactness

_COSTS, _PROFILE, _SIDECAR = "costs", "profile", "sidecar"


class Instruments(Protocol):
    """Measures what an engine does; whatever ``check`` raises ends it."""

    def costs(self, text: Sequence[int], depths: Sequence[int], settings: SamplingSettings, check: Check) -> Costs:
        """The parts of rounds at ``depths`` after ``text``."""
        ...

    def profile(self, spec: ArmSpec, work: Workload, check: Check) -> Profile:
        """Where the time of the arm's first text goes."""
        ...


class LocalInstruments(Instruments):
    """For a model in this process."""

    def __init__(self, engine: LocalEngine, loaded: Local) -> None:
        self._engine, self._loaded = engine, loaded

    def costs(self, text: Sequence[int], depths: Sequence[int], settings: SamplingSettings, check: Check) -> Costs:
        target, head = self._loaded.target, self._loaded.head
        return measure_costs(target, head, text, depths if head else [0], make_sampler(settings), check=check)

    def profile(self, spec: ArmSpec, work: Workload, check: Check) -> Profile:
        return profile_text(self._engine, self._loaded, spec, work, check)


class RingInstruments(Instruments):
    """For a model over the workers of ``engine``: its decider measures, with every lap over the links there are."""

    def __init__(self, engine: ClusterEngine) -> None:
        self._engine = engine

    def costs(self, text: Sequence[int], depths: Sequence[int], settings: SamplingSettings, check: Check) -> Costs:
        asked = {"tokens": list(text), "depths": list(depths), "sampling": sampling_frame(settings)}
        return read_costs(self._engine.at_decider(_COSTS, asked))

    def profile(self, spec: ArmSpec, work: Workload, check: Check) -> Profile:
        found = self._engine.at_decider(
            _PROFILE,
            {
                "prompt": list(work.prompts[0]),
                "num_tokens": work.num_tokens,
                "depth": AUTO if spec.depth is None else spec.depth,
                "sampling": sampling_frame(work.settings_of(0, 0)),
                "exactness": work.exactness.value,
            },
        )
        return Profile(**found)


def sidecar_at_decider(engine: ClusterEngine) -> tuple[str, str, dict[str, str]]:
    """Layout, SHA-256 and conventions of the decider's draft head.

    The digest is empty where the head has no file of its own.
    """
    found = engine.at_decider(_SIDECAR, {})
    return found["layout"], found["sha256"], found["conventions"]


def at_decider() -> Mapping[str, Instrument]:
    """What a decider measures when it is asked."""
    return {_COSTS: _costs, _PROFILE: _profile, _SIDECAR: _sidecar}


def _costs(at: AtDecider, asked: Mapping[str, Any], check: Check) -> Mapping[str, Any]:
    target, head = at.loaded.model.target, at.loaded.drafter
    depths = asked["depths"] if head is not None else [0]
    sampler = make_sampler(read_sampling(asked["sampling"]))
    return measure_costs(target, head, asked["tokens"], depths, sampler, exchange=at.exchange, check=check).as_frame()


def _profile(at: AtDecider, asked: Mapping[str, Any], check: Check) -> Mapping[str, Any]:
    depth, settings, model = asked["depth"], read_sampling(asked["sampling"]), at.loaded.model
    spec = ArmSpec.fixed(depth) if isinstance(depth, int) else ArmSpec.auto(lambda: at.auto(settings))
    if at.loaded.drafter is None:
        spec = ArmSpec.fixed(0)
    unnamed = PromptsRecord("", "", (len(asked["prompt"]),), chat_template=False, context=None)
    prompts = (tuple(asked["prompt"]),)
    work = Workload("", prompts, unnamed, asked["num_tokens"], 1, settings, Exactness(asked["exactness"]))
    local = Local(model.target, model.tokenizer, at.loaded.drafter)
    return asdict(profile_text(at.engine, local, spec, work, check, at.exchange))


def _sidecar(at: AtDecider, asked: Mapping[str, Any], check: Check) -> Mapping[str, Any]:
    head = at.loaded.head
    if head is None:
        return {"layout": "none", "sha256": "", "conventions": {}}
    origin = head.origin
    sha256 = record_file(origin.parent, origin.name).sha256 if origin.is_file() else ""
    return {"layout": head.layout, "sha256": sha256, "conventions": conventions_record(head.conventions)}
