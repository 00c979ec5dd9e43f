"""The cases of one benchmark with their arms, nothing decoded yet."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cli.bench_options import Wish
from cli.depth import make_policy
from cli.loading import Loaded
from cli.render import Reporter
from skulk_core.errors import OptionError

if TYPE_CHECKING:
    from skulk_core.bench.measure import Measurement
    from skulk_core.bench.prompts import PromptSet
    from skulk_core.bench.workload import ArmSpec, Workload
    from skulk_core.decode.session import Session
    from skulk_core.sampling.settings import SamplingSettings

# Tokens of the longest text where a model states no limit: beyond it making the text is what takes the memory.
_MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class Cases:
    """What is measured; ``left_out`` are the names of cases that the model's context is too short for."""

    measurements: "list[Measurement]"
    left_out: tuple[str, ...]


def prepare(wish: Wish, loaded: Loaded, reporter: Reporter) -> Cases:
    """Every case with its arms. Raises `OptionError`, and as prompts do."""
    from skulk_core.bench.measure import Measurement
    from skulk_core.decode.session import Session

    if wish.depths.drafts and not loaded.can_draft:
        raise OptionError(
            "--draft-depth", "", f"nothing drafts here ({loaded.plain_because}); 0 measures plain decoding"
        )
    session, left_out = Session(loaded.model, loaded.drafter, loaded.engine), list[str]()
    context = loaded.model.context_tokens
    works = _suite(wish, session, context, left_out) if wish.suite else [_only(wish, session, context)]
    if left_out:
        reporter.note(f"left out, for the model was made for {context} tokens: {'; '.join(left_out)}")
    peers = _peers(wish, loaded, max(work.most_tokens for work in works), reporter)
    arms: dict[bool, list[ArmSpec]] = {}
    measurements = []
    for work in works:
        # what rounds cost depends on whether tokens are drawn
        greedy = work.settings.is_greedy
        if greedy not in arms:
            arms[greedy] = [*peers, *_our_arms(wish, loaded, work.settings, reporter)]
        measurements.append(Measurement.of(work, arms[greedy]))
    return Cases(measurements, tuple(left_out))


def _only(wish: Wish, session: "Session", context: int | None) -> "Workload":
    from skulk_core.bench.prompts import read_prompts

    most = _MOST_TOKENS if context is None else context
    made = "the most where a model states none" if context is None else "for which the model was made"
    # before the text is made: one of a billion tokens takes all memory
    if wish.context is not None and wish.context + wish.num_tokens > most:
        raise OptionError("--context", wish.context, f"and {wish.num_tokens} tokens after it are over {most}, {made}")
    prompts = read_prompts(wish.prompts)
    parts = [prompts.name, f"{wish.num_tokens} tokens", f"temperature {wish.settings.temperature:g}"]
    parts += [f"after {wish.context} tokens"] if wish.context else []
    work = _workload(wish, session, ", ".join(parts), prompts, wish.settings, wish.num_tokens, wish.num_turns)
    if work.most_tokens > most:
        longest = work.most_tokens - work.num_tokens
        raise OptionError(
            "--tokens", wish.num_tokens, f"and the {longest} tokens of the longest prompt are over {most}, {made}"
        )
    return work


def _suite(wish: Wish, session: "Session", context: int | None, left_out: list[str]) -> Sequence["Workload"]:
    from skulk_core.bench.suite import suite

    works = []
    for case in suite(wish.num_turns):
        settings = replace(wish.settings, temperature=case.temperature)
        asked = replace(wish, context=case.context)
        work = _workload(asked, session, case.name, case.prompts, settings, case.num_tokens, case.num_turns)
        if context is not None and work.most_tokens > context:
            left_out.append(case.name)
        else:
            works.append(work)
    if not works:
        raise OptionError("--suite", "", f"every case has more than the {context} tokens for which the model was made")
    return works


def _workload(
    wish: Wish,
    session: "Session",
    name: str,
    prompts: "PromptSet",
    settings: "SamplingSettings",
    num_tokens: int,
    num_turns: int,
) -> "Workload":
    from skulk_core.bench.prompts import encode
    from skulk_core.bench.workload import Workload

    fed, described = encode(session, prompts, raw=wish.raw, context=wish.context)
    return Workload(name, fed, described, num_tokens, num_turns, settings, wish.exactness)


def _our_arms(wish: Wish, loaded: Loaded, settings: "SamplingSettings", reporter: Reporter) -> list["ArmSpec"]:
    from skulk_core.bench.workload import ArmSpec

    arms = [ArmSpec.fixed(depth) for depth in wish.depths.fixed]
    if wish.depths.auto:
        policy = make_policy(loaded, settings, reporter, "auto", anew=True)
        # every text begins as a run does: with what rounds cost, and nothing seen yet
        arms.append(ArmSpec.auto(lambda: deepcopy(policy)))
    return arms


def _peers(wish: Wish, loaded: Loaded, most_tokens: int, reporter: Reporter) -> list["ArmSpec"]:
    if wish.against is None:
        return []
    from skulk_core.bench.against import Against, arms_against, require_common

    require_common(wish.settings)
    reporter.step(f"loading {wish.against}")
    origin = None if loaded.head is None else loaded.head.origin
    # a head that is a checkpoint of its own, and not a part of the model's
    assistant = origin if origin is not None and origin.is_dir() and origin != loaded.source.folder else None
    path = loaded.source.path
    return arms_against(Against(wish.against, loaded.model, path, most_tokens, wish.against_draft, assistant))
