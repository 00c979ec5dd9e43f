"""Which models a model was made from, as model cards state it.

A card is somebody's word, so it is followed only to find a draft head, and each step is kept to be shown. Whatever is
missing or cannot be read ends the chain with a reason; it never stops a run.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from skulk_core.hub.refs import RepoRef

CARD_FILE = "README.md"
MAX_STEPS = 8

_TIMEOUT_S = 5.0
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One base model, and whose card says so, for a person. `generation` counts the cards that were read to get here.

    A merge names several models of one generation.
    """

    repo: str
    why: str
    generation: int = 1


@dataclass(frozen=True)
class Chain:
    """Base models, nearest first; of a merge, one generation after the other. `ended` says why there are no more.

    `hub_is_away`: nobody answered, and asking for anything else would only take as long again.
    """

    steps: tuple[Step, ...]
    ended: str
    hub_is_away: bool = False

    @property
    def repos(self) -> tuple[str, ...]:
        return tuple(step.repo for step in self.steps)


@dataclass(frozen=True)
class _Card:
    bases: tuple[str, ...]
    relation: str


@dataclass(frozen=True)
class _NoCard:
    reason: str
    hub_is_away: bool = False


_AWAY = _NoCard("the Hub cannot be reached", hub_is_away=True)


def base_models(start: Path | RepoRef, max_steps: int = MAX_STEPS) -> Chain:
    """Follow `base_model` from the card in the folder `start`, or from the repository, for at most `max_steps` models.

    The folder's own card is read from disk, every further card from the Hub.
    """
    if isinstance(start, Path):
        name, card = CARD_FILE, _card_on_disk(start)
    else:
        name, card = start.repo, _card_on_hub(start)
    steps: list[Step] = []
    endings: list[str] = []
    seen = {name.lower()}
    waiting: list[tuple[str, int]] = []
    generation = 1
    while True:
        if isinstance(card, _NoCard):
            endings.append(card.reason)
            if card.hub_is_away:
                break
        elif not card.bases:
            endings.append(f"{name} names no base model")
        else:
            for base in card.bases:
                if base.lower() in seen:
                    endings.append(f"{name} names {base} again")
                    continue
                if len(steps) == max_steps:
                    return Chain(tuple(steps), f"stopped after {max_steps} models")
                seen.add(base.lower())
                steps.append(Step(base, f"base_model of {name}{card.relation}", generation))
                waiting.append((base, generation + 1))
        if not waiting:
            break
        name, generation = waiting.pop(0)
        card = _card_on_hub(RepoRef(name))
    return Chain(tuple(steps), endings[0], isinstance(card, _NoCard) and card.hub_is_away)


def _card_on_disk(folder: Path) -> _Card | _NoCard:
    file = folder / CARD_FILE
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return _NoCard(f"no readable {CARD_FILE} in {folder}")
    front_matter = _FRONT_MATTER.match(text)
    if not front_matter:
        return _NoCard(f"{file} has no front matter")
    try:
        data = YAML(typ="safe", pure=True).load(front_matter[1])
    except (YAMLError, ValueError, RecursionError):
        return _NoCard(f"the front matter of {file} is not YAML")
    if not isinstance(data, dict):
        return _NoCard(f"the front matter of {file} is not a mapping")
    return _card(data.get("base_model"), data.get("base_model_relation"))


def _card_on_hub(ref: RepoRef) -> _Card | _NoCard:
    try:
        data = HfApi().model_info(ref.repo, revision=ref.revision, timeout=_TIMEOUT_S).card_data
    except HfHubHTTPError as error:
        return _NoCard(f"the Hub does not show the card of {ref.repo} (status {error.response.status_code})")
    except (httpx2.TransportError, OfflineModeIsEnabled):
        return _AWAY
    except ValueError:  # no valid repository name, or an answer that is not a Hub's
        return _NoCard(f"{ref.repo} has no card on the Hub")
    return _card(data.get("base_model"), data.get("base_model_relation")) if data else _Card((), "")


def _card(bases: object, relation: object) -> _Card:
    """Card data as people write it: one name, a list of names, or something else, which counts as none."""
    names: Iterable[object] = bases if isinstance(bases, list) else [bases]
    wanted = tuple(name.strip() for name in names if isinstance(name, str) and "/" in name)
    return _Card(wanted, f" ({relation})" if isinstance(relation, str) else "")
