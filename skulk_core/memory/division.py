"""What ranks that share every layer divide among them, and whether it can be divided equally. Pure arithmetic."""

from dataclasses import dataclass

from skulk_core.errors import ShareError


@dataclass(frozen=True)
class Part:
    """``count`` things of one kind in a layer, of which every rank gets as many.

    ``may_repeat``: where there are fewer than ranks, several ranks may have the same one. ``is_packed``: the columns of
    a matrix that is quantised in groups along them, so that a share must consist of whole groups.
    """

    name: str
    count: int
    may_repeat: bool = False
    is_packed: bool = False


@dataclass(frozen=True)
class Division:
    """How a model of ``model_type`` can be divided; without ``parts`` it cannot. ``group_size`` 1: not quantised."""

    model_type: str
    parts: tuple[Part, ...] = ()
    group_size: int = 1

    def check(self, size: int) -> None:
        """Raise `ShareError` unless ``size`` ranks can have equal shares."""
        if not self.parts:
            raise ShareError(self.model_type, f"mlx-lm cannot divide the layers of {self.model_type} models")
        for part in self.parts:
            unit = self.group_size if part.is_packed else 1
            if part.count % (size * unit) and not (part.may_repeat and size % part.count == 0):
                of = f" in groups of {unit}" if unit > 1 else ""
                reason = f"{part.count} {part.name}{of} of this {self.model_type} model are no {size} equal shares"
                raise ShareError(self.model_type, reason)
