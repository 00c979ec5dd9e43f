"""What one worker is told: its place in the ring, its layers, and what the decider drafts with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from skulk_core.types import Conventions, LayerRange


class Shard(StrEnum):
    """How a model is spread: by its layers, or every layer by its heads."""

    PIPELINE = "pipeline"
    TENSOR = "tensor"


@dataclass(frozen=True)
class Drafting:
    """The decider's head, as a command line says it. ``how`` is `head`, `ngram` or `none`.

    ``needed``: whether a model without a head is an error. ``allow_plain``: whether one that cannot be used is none.
    """

    how: str = "none"
    sidecar: str | None = None
    precision: str = "auto"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    needed: bool = False
    allow_plain: bool = False


@dataclass(frozen=True)
class Assignment:
    """One rank's part of an epoch. ``[start, end)`` are its layers.

    ``model`` and ``dtype`` are as on a command line; ``address`` is where its neighbours reach it. ``threads`` limits
    the BLAS where several ranks share a machine, and those are ``patient``: they sleep instead of spinning.
    ``memory_nbytes`` is the most that MLX may hold there.
    """

    epoch: int
    rank: int
    size: int
    start: int
    end: int
    model: str
    dtype: str
    backend: str = "ring"
    shard: Shard = Shard.PIPELINE
    address: str = "127.0.0.1"
    threads: int | None = None
    patient: bool = False
    memory_nbytes: int | None = None
    drafting: Drafting = Drafting()

    @property
    def decides(self) -> bool:
        """Whether this rank drafts, samples and speaks of tokens: the last of a pipeline, the first otherwise."""
        return self.rank == (self.size - 1 if self.shard is Shard.PIPELINE else 0)

    @property
    def layers(self) -> LayerRange:
        """The rank's layers."""
        return LayerRange(self.start, self.end)

    def as_frame(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read_assignment(frame: Mapping[str, Any]) -> Assignment:
    """What `Assignment.as_frame` wrote."""
    values = {name: frame[name] for name in Assignment.__dataclass_fields__}
    drafting = Drafting(**values.pop("drafting"))
    # JSON has no enumerations, and a convention that is only equal to one would be taken for another
    overrides = {name: type(getattr(Conventions(), name))(value) for name, value in drafting.overrides.items()}
    drafting = replace(drafting, overrides=overrides)
    return Assignment(**{**values, "shard": Shard(values["shard"]), "drafting": drafting})
