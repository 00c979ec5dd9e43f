"""Any model → the entries of its base model, step by step; each step says what it tried and what came of it.

1. The catalog lists the model itself, by its own name or by that of an entry's repository.
2. One of its base models is listed: followed from card to card (`hub.model_card`), nearest first.
3. Its config.json has the numbers of one listed model, and of no other.
4. By name: what is left of one of its names without owner, quantisation and finetune suffixes.

Where several bases are equally near, as of a merge or of two models of one shape, none is taken: they become the
candidates among which later steps choose. Nothing is asked of the Hub before a step needs it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

from skulk_core.catalog.fingerprint import contradictions, differences, fingerprint_of
from skulk_core.catalog.names import core_name, without_base
from skulk_core.catalog.subject import Subject
from skulk_core.errors import NotInCatalog
from skulk_core.formats.catalog import Entry, Fingerprint, is_repo
from skulk_core.hub.model_card import Chain, base_models
from skulk_core.hub.model_config import NoConfig, read_model_config

_E = TypeVar("_E", bound=Entry)


class Rule(StrEnum):
    """The four steps."""

    LISTED = "listed"
    BASE_MODEL = "base_model"
    CONFIG = "config"
    NAME = "name"


class Outcome(StrEnum):
    """What came of a step."""

    FOUND = "found"
    AMBIGUOUS = "ambiguous"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Step:
    """One step. `said` is a sentence for a person, `bases` the base found, or those of which none was taken."""

    rule: Rule
    outcome: Outcome
    said: str
    bases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule}: {self.said}"


@dataclass(frozen=True)
class Resolution(Generic[_E]):
    """What became of a model: its base's entries, one of each kind or more, or none. `steps` are those taken."""

    asked: str
    steps: tuple[Step, ...]
    entries: tuple[_E, ...]

    @property
    def base(self) -> str | None:
        """The base model, as the catalog writes it; None where none was found."""
        return self.entries[0].base if self.entries else None

    @property
    def candidates(self) -> tuple[str, ...]:
        """Bases of which none could be preferred, where none was found."""
        return () if self.entries else next((step.bases for step in reversed(self.steps) if step.bases), ())

    @property
    def because(self) -> str:
        """Why the base was found, or the last thing that was said of not finding one."""
        ambiguous = [step for step in self.steps if step.outcome is Outcome.AMBIGUOUS]
        return (ambiguous[-1] if ambiguous and not self.entries else self.steps[-1]).said

    def require(self) -> "Resolution[_E]":
        """The resolution itself, if something was found. Raises `NotInCatalog`."""
        if self.entries:
            return self
        raise NotInCatalog(self.asked, self.because, self.candidates)


def resolve(subject: Subject, entries: Sequence[_E]) -> Resolution[_E]:
    """Take the four steps until one finds a base. Never raises: what cannot be read is an outcome of its step."""
    search = _Search(subject, entries)
    steps: list[Step] = []
    for take in (search.listed, search.base_model, search.config, search.name):
        step = take()
        steps.append(step)
        if step.outcome is Outcome.FOUND:
            found = step.bases[0].lower()
            return Resolution(subject.asked, tuple(steps), tuple(e for e in entries if e.base.lower() == found))
        if step.outcome is Outcome.AMBIGUOUS:
            search.candidates = step.bases
    return Resolution(subject.asked, tuple(steps), ())


class _Search(Generic[_E]):
    """The steps of one look-up. `candidates` limits later steps, once an earlier one was ambiguous."""

    def __init__(self, subject: Subject, entries: Sequence[_E]) -> None:
        self._subject, self._entries = subject, entries
        self.candidates: tuple[str, ...] | None = None
        self._merged = False
        self._by_base: dict[str, _E] = {}
        self._prints: dict[str, Fingerprint] = {}
        for entry in entries:
            self._by_base.setdefault(entry.base.lower(), entry)
            if entry.fingerprint is not None:
                self._prints.setdefault(entry.base.lower(), entry.fingerprint)

    @cached_property
    def _chain(self) -> Chain:
        return base_models(self._subject.card)

    @cached_property
    def _config(self) -> Mapping[str, Any] | NoConfig:
        return read_model_config(self._subject.config, cached_only=self._chain.hub_is_away)

    @cached_property
    def _fingerprint(self) -> Fingerprint | str:
        """The model's own, or why there is none."""
        if isinstance(self._config, NoConfig):
            return self._config.reason
        found = fingerprint_of(self._config)
        return f"its config.json is of no use here: {found}" if isinstance(found, str) else found

    def listed(self) -> Step:
        for name in self._subject.names:
            for entry in self._entries:
                if name.lower() == entry.base.lower():
                    return Step(Rule.LISTED, Outcome.FOUND, f"the catalog lists {entry.base}", (entry.base,))
                if name.lower() == entry.repo.lower():
                    return Step(Rule.LISTED, Outcome.FOUND, f"it is the {entry.kind} of {entry.base}", (entry.base,))
        return Step(Rule.LISTED, Outcome.NOTHING, f"the catalog does not list {' or '.join(self._subject.names)}")

    def base_model(self) -> Step:
        trail = ", ".join(f"{step.repo} ({step.why})" for step in self._chain.steps)
        if not trail:
            return Step(Rule.BASE_MODEL, Outcome.NOTHING, self._chain.ended)
        refused: list[str] = []
        for generation in sorted({step.generation for step in self._chain.steps}):
            repos = [step.repo for step in self._chain.steps if step.generation == generation]
            bases = []
            for entry in filter(None, (self._by_base.get(repo.lower()) for repo in repos)):
                if against := self._contradicted(entry.base):
                    refused.append(f"{entry.base} cannot be its base: {against}")
                elif entry.base not in bases:
                    bases.append(entry.base)
            if len(bases) == 1:
                return Step(Rule.BASE_MODEL, Outcome.FOUND, f"its base model is {bases[0]}: {trail}", tuple(bases))
            if bases:
                self._merged = True
                said = f"it was made from {' and '.join(bases)}: {trail}"
                return Step(Rule.BASE_MODEL, Outcome.AMBIGUOUS, said, tuple(bases))
        said = "; ".join(refused) or f"none of these is listed: {trail}; {self._chain.ended}"
        return Step(Rule.BASE_MODEL, Outcome.NOTHING, said)

    def config(self) -> Step:
        found = self._fingerprint
        if isinstance(found, str):
            return Step(Rule.CONFIG, Outcome.NOTHING, found)
        known = [entry for entry in self._by_base.values() if self._print_of(entry) and self._allowed(entry)]
        bases = tuple(entry.base for entry in known if not differences(self._prints[entry.base.lower()], found))
        if len(bases) == 1:
            said = f"its configuration ({found}) is that of {bases[0]}"
            return Step(Rule.CONFIG, Outcome.FOUND, said, bases)
        if bases:
            return Step(Rule.CONFIG, Outcome.AMBIGUOUS, f"its configuration ({found}) is that of {_or(bases)}", bases)
        if not known:
            return Step(Rule.CONFIG, Outcome.NOTHING, "the configurations of the models in question are not known")
        nearest = min(known, key=lambda entry: len(differences(self._prints[entry.base.lower()], found)))
        unlike = ", ".join(differences(self._prints[nearest.base.lower()], found))
        said = f"its configuration ({found}) is that of no listed model; {nearest.base} is nearest, but for {unlike}"
        return Step(Rule.CONFIG, Outcome.NOTHING, said)

    def name(self) -> Step:
        allowed = [entry for entry in self._by_base.values() if self._allowed(entry)]
        by_core = _first((core_name(entry.base), entry) for entry in allowed)
        by_stem = _first((without_base(core_name(entry.base)), entry) for entry in allowed)
        refused = ""
        for names in self._names():
            alike: dict[str, str] = {}
            for name in names:
                core = core_name(name)
                entry = by_core.get(core) or by_stem.get(without_base(core))
                if entry is None:
                    continue
                if against := self._contradicted(entry.base):
                    refused = f"{name} looks like {entry.base}, but it is another: {against}"
                    continue
                agreed = "; its configuration agrees" if self._agrees(entry) else ""
                alike.setdefault(entry.base, f"{name} without its suffixes is {entry.base}{agreed}")
            if alike:
                outcome = Outcome.FOUND if len(alike) == 1 else Outcome.AMBIGUOUS
                return Step(Rule.NAME, outcome, ", and ".join(alike.values()), tuple(alike))
        among = "" if self.candidates is None else f" of {_or(self.candidates)}"
        tried = ", ".join(name for names in self._names() for name in names)
        return Step(Rule.NAME, Outcome.NOTHING, refused or f"no name is like one{among}: {tried}")

    def _names(self) -> list[list[str]]:
        """Names the model goes by: its own, those of its base models, nearest first, the one in its configuration.

        Where it was made from several listed models, their names say nothing.
        """
        names = [list(self._subject.names)]
        if not self._merged:
            steps = self._chain.steps
            names += [[s.repo for s in steps if s.generation == g] for g in sorted({s.generation for s in steps})]
        written = "" if isinstance(self._config, NoConfig) else self._config.get("_name_or_path")
        return [*names, [written]] if isinstance(written, str) and is_repo(written) else names

    def _allowed(self, entry: _E) -> bool:
        return self.candidates is None or entry.base in self.candidates

    def _print_of(self, entry: _E) -> Fingerprint | None:
        return self._prints.get(entry.base.lower())

    def _agrees(self, entry: _E) -> bool:
        known, found = self._print_of(entry), self._fingerprint
        return known is not None and isinstance(found, Fingerprint) and not differences(known, found)

    def _contradicted(self, base: str) -> str:
        """Why the model cannot have been made from `base`, by its configuration; empty if it can."""
        known, found = self._prints.get(base.lower()), self._fingerprint
        return ", ".join(contradictions(known, found)) if known and isinstance(found, Fingerprint) else ""


def _first(pairs: Iterable[tuple[str, _E]]) -> dict[str, _E]:
    """A dict in which the first pair of a key wins: the user's entries come first."""
    found: dict[str, _E] = {}
    for key, entry in pairs:
        found.setdefault(key, entry)
    return found


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
