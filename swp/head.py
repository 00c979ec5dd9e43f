"""Finding the head among a checkpoint's tensors, by name alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from skulk_core.errors import DraftModelItself, NothingToExtract, OptionError, StrippedCheckpoint, UnknownHead
from skulk_core.formats.head_names import belongs_to_head, local_name
from skulk_core.formats.suggest import near_miss
from swp.checkpoint import Checkpoint
from swp.layouts.base import Layout, Place, requirement_missing
from swp.layouts.registry import ASSISTANT_TYPES, ASSISTED_TYPES, layout, layout_names


@dataclass(frozen=True)
class Kin:
    """A model's relatives, looked up only when something is to be said of them: this may ask the Hub.

    `bases` are the models it was made from, nearest first; `assistant` is the draft model published beside it, or "".
    """

    bases: Callable[[], tuple[str, ...]]
    assistant: Callable[[], str]


@dataclass(frozen=True)
class Head:
    """A head in a known layout. `places` maps every tensor of it, scales included, to its place, in their order."""

    layout: Layout
    num_heads: int
    places: Mapping[str, Place]

    def trunk_copies(self, tensor: str, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Names of the trunk's tensors that a tensor of the head may be a copy of, the likeliest first."""
        wanted = self.layout.trunk_copies(self.places[tensor].name)
        if not wanted:
            return ()
        trunk = {local_name(name): name for name in checkpoint.tensors.file_of if name not in self.places}
        return tuple(trunk[local] for local in wanted if local in trunk)


def find_head(checkpoint: Checkpoint, asked: str | None, kin: Kin) -> Head:
    """The checkpoint's head. `asked` is a layout's name.

    Raises `NothingToExtract`, `StrippedCheckpoint`, `UnknownHead`, or `OptionError` for a layout that does not exist or
    does not fit.
    """
    if asked is not None:
        return _asked_for(checkpoint, asked)
    source, types = str(checkpoint.files), checkpoint.model_types
    if any(kind in ASSISTANT_TYPES for kind in types):
        raise DraftModelItself(source)
    candidates = [layout(name) for name in layout_names()]
    for one in candidates:
        _refuse_foreign(checkpoint, one)
    fitting = [head for one in candidates if isinstance(head := _fit(checkpoint, one), Head)]
    if len(fitting) > 1:
        by_type = [head for head in fitting if set(types) & set(head.layout.model_types)]
        fitting = by_type or fitting
    if len(fitting) == 1 and set(types) & set(fitting[0].layout.model_types):
        return _checked(checkpoint, fitting[0])
    if len(fitting) == 1:
        name = fitting[0].layout.name
        reason = f"its head has the names of a {name} head, but {types[0]} is no family known to wire it so"
        raise UnknownHead(source, f"{reason}; --layout {name} takes it for one", tuple(fitting[0].places))
    if fitting:
        known = ", ".join(head.layout.name for head in fitting)
        raise UnknownHead(source, f"fits more than one layout ({known}): choose with --layout", ())
    raise _why_not(checkpoint, candidates, kin)


def _asked_for(checkpoint: Checkpoint, asked: str) -> Head:
    if asked not in layout_names():
        hint = near_miss(asked, layout_names()) or f"; there are {', '.join(layout_names())}"
        raise OptionError("--layout", asked, f"no such layout{hint}")
    wanted = layout(asked)
    _refuse_foreign(checkpoint, wanted)
    found = _fit(checkpoint, wanted)
    if isinstance(found, str):
        raise OptionError("--layout", asked, f"does not fit {checkpoint.files}: {found}")
    return _checked(checkpoint, found)


def _places(checkpoint: Checkpoint, one: Layout) -> dict[str, Place]:
    num_layers = checkpoint.num_trunk_layers
    found = {name: place for name in checkpoint.tensors.file_of if (place := one.place(name, num_layers))}
    return dict(sorted(found.items(), key=lambda item: (item[1].depth, item[1].name)))


def _refuse_foreign(checkpoint: Checkpoint, one: Layout) -> None:
    for name, place in _places(checkpoint, one).items() if one.foreign else ():
        other = one.foreign_head(place.name)
        if other:
            raise UnknownHead(
                str(checkpoint.files),
                f"its head is not the {one.name} block but {other} ({name}): not supported",
                [name],
            )


def _fit(checkpoint: Checkpoint, one: Layout) -> Head | str:
    """The head in this layout, or why it is none."""
    places = _places(checkpoint, one)
    if not places:
        return "no tensor has such a name"
    depths: dict[int, tuple[str, ...]] = {}
    for place in places.values():
        depths[place.depth] = (*depths.get(place.depth, ()), place.name)
    if sorted(depths) != list(range(len(depths))):
        return f"depths {sorted(depths)} do not follow one another from 0"
    if missing := requirement_missing(one, depths):
        return f"{missing} is missing"
    unknown = next((name for name, place in places.items() if not one.knows(place.name)), None)
    return Head(one, len(depths), places) if unknown is None else f"{unknown} is no part of such a head"


def _checked(checkpoint: Checkpoint, head: Head) -> Head:
    """The head, if it is whole by what config.json promises."""
    promised = head.layout.promised(checkpoint.text)
    if head.layout.counts_depths and promised > head.num_heads:
        reason = f"config.json promises {promised} depths, the files have {head.num_heads}: the rest was left out"
        raise StrippedCheckpoint(str(checkpoint.files), reason, ())
    return head


def _why_not(
    checkpoint: Checkpoint, candidates: Sequence[Layout], kin: Kin
) -> NothingToExtract | StrippedCheckpoint | UnknownHead:
    source, types = str(checkpoint.files), checkpoint.model_types
    of_family = [one for one in candidates if set(types) & set(one.model_types)]
    for one in of_family:
        if _places(checkpoint, one):
            reason = f"has a head that is not a whole {one.name} head: {_fit(checkpoint, one)}"
            return UnknownHead(source, reason, tuple(_places(checkpoint, one)))
    heads = tuple(sorted(name for name in checkpoint.tensors.file_of if belongs_to_head(name)))
    if heads:
        return UnknownHead(source, f"has a head in no layout known here ({heads[0]} and others)", heads)
    if any(kind in ASSISTED_TYPES for kind in types):
        assistant = kin.assistant()
        named = f": {assistant}" if assistant else ""
        return NothingToExtract(
            source, f"{types[0]} has no head; a separate draft model is published{named}", assistant
        )
    promised = max((one.promised(checkpoint.text) for one in of_family or candidates), default=0)
    if promised:
        reason = f"config.json promises {promised} draft head(s), but the files have none: this checkpoint was stripped"
        return StrippedCheckpoint(source, reason, kin.bases())
    return NothingToExtract(source, f"{types[0] if types else 'the model'} was released without a draft head")
