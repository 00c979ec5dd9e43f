"""Cards: what a person reads of a published folder, rendered from its manifest. Values in, text out.

Everything a card quotes was written by others: names, dtypes, licences, figures. None of it can become anything but
text. Front matter is emitted by the YAML library; in the body every value that a template prints is turned into
characters and numeric character references, which Markdown and HTML take for letters and never for markup (CommonMark,
"Entity and numeric character references"); a value in a code block is kept to its line. Templates cannot forget this,
because it is the environment that does it; only what is made here, `Markup`, is let through as it is.
"""

import io
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from skulk_core.formats.provenance import HUB_URI, Manifest
from skulk_core.formats.receipt import Receipt
from skulk_core.formats.sidecar import SIDECAR_FILE
from skulk_core.runtime.resources import templates_folder
from swp.licence import licence_fields
from swp.receipt import require_sidecar

CARD_FILE = "README.md"
# The Hub knows four relations. A sidecar is no finetune, merge or quantised copy: it is weights beside a base model
# that stays as it is, which is what the Hub calls an adapter.
RELATION = "adapter"
LIBRARY = "skulk"
TAGS = ("mtp", "multi-token-prediction", "speculative-decoding", "sidecar")

_TEMPLATE = "sidecar_card.md.j2"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}")
# Texts that every YAML reader takes for texts: readers of YAML 1.1 see truth values, numbers and dates in many others.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
# What does not stay itself in a card's body: everything that could be markup, and the point that makes an address of a
# word. The underscore stays inside a word, where it marks nothing.
_OTHER = re.compile(r"[^A-Za-z0-9 .,/×–-]|(?<=www)\.", re.IGNORECASE)
_INNER_UNDERSCORE = re.compile(r"(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])")
_MEANINGS = {
    "copy": "bit for bit",
    "cast": "rounded to BF16, to the nearest, ties to even",
    "fp8_block": "FP8 times the scale of its block, then rounded to BF16",
    "fp4_block": "packed FP4 times the scale of its block, then rounded to BF16",
    "nvfp4_block": "packed FP4 times the scales of its block and of the tensor, then rounded to BF16",
    "fp8_scale": "FP8 times its scale, then rounded to BF16",
    "int8_scale": "INT8 times its scale, then rounded to BF16",
}
_OTHER_MEANING = "dequantised as the source declares, then rounded to BF16"


def render(manifest: Manifest, *, repo: str | None = None, receipt: Receipt | None = None) -> str:
    """The card of a sidecar, the same for the same values.

    `repo` is where it is or will be published; without one the card speaks of the folder. `receipt` adds measured
    figures. Raises `OtherSidecar` for figures of another sidecar.
    """
    if receipt is not None:
        require_sidecar(receipt, manifest)
    fields = licence_fields(manifest.licence)
    sidecar = repo or "."
    conventions = {name: getattr(value, "value", value) for name, value in asdict(manifest.conventions).items()}
    recipes = Counter(tensor.recipe for tensor in manifest.tensors)
    ids = fields["license"]
    return render_template(
        _TEMPLATE,
        manifest=manifest,
        front_matter=Markup(front_matter(manifest.source_repo, fields, TAGS)),
        title=repo or f"{manifest.source_repo}: MTP sidecar",
        source_link=_source_link(manifest),
        sidecar=sidecar,
        measured=None if receipt is None else _measured(receipt),
        recipe=_recipe(manifest),
        recipes=[(name, count, _MEANINGS.get(name, _OTHER_MEANING)) for name, count in sorted(recipes.items())],
        conventions=sorted(conventions.items()),
        nbytes=sum(tensor.nbytes for tensor in manifest.tensors),
        licence={
            "unknown": not manifest.licence.id,
            "ids": ids if isinstance(ids, str) else ", ".join(ids),
            "files": [file.name for file in manifest.files if file.name != SIDECAR_FILE],
        },
    )


def _measured(receipt: Receipt) -> dict[str, Any]:
    """What a card says of a benchmark: every arm of the first case, and of each other case the best."""
    first = receipt.cases[0]
    best = [(case, arm, case.figures(arm)) for case in receipt.cases[1:] if (arm := case.best) is not None]
    return {
        "receipt": receipt,
        "case": first,
        "arms": [(arm, first.figures(arm)) for arm in first.arms if arm.samples],
        "others": best,
    }


def front_matter(
    base: str,
    licence: Mapping[str, str | list[str]],
    tags: Sequence[str],
    *,
    relation: str = RELATION,
    library: str = LIBRARY,
) -> str:
    """The YAML of a card: what it is made from, and the licence fields as `licence_fields` gives them."""
    fields: dict[str, Any] = {
        "base_model": base,
        "base_model_relation": relation,
        "library_name": library,
        "tags": list(tags),
        **licence,
    }
    yaml = YAML()
    yaml.width = 1 << 20  # a folded line would begin with what upstream wrote
    yaml.allow_unicode = False  # some of it changes the direction of text, or ends a line, on a terminal
    stream = io.StringIO()
    yaml.dump({key: _quoted(value) for key, value in fields.items()}, stream)
    return stream.getvalue().rstrip("\n")


def render_template(template: str, **values: object) -> str:
    """A template of `templates/` with every value printed as text. For cards, whose lines end in one line break."""
    rendered = _environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", rendered).lstrip("\n")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(templates_folder()),
        undefined=StrictUndefined,
        autoescape=False,  # `finalize` escapes, for Markdown and HTML alike
        finalize=as_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(line=_line, size=_size, dims=_dims, decimals=_decimals, percentages=_percentages)
    return environment


def as_text(value: object) -> str:
    """`value` as characters that no Markdown or HTML reader takes for markup; `Markup` as it is."""
    if isinstance(value, Markup):
        return str(value)
    text = _INNER_UNDERSCORE.sub("\0", _one_line(str(value)))
    return _OTHER.sub(lambda match: "_" if match[0] == "\0" else f"&#{ord(match[0])};", text)


def _one_line(text: str) -> str:
    """Without characters that end a line, move a cursor or hide others: each is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _quoted(value: object) -> object:
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    plain = _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS
    return text if plain else DoubleQuotedScalarString(text)


def _source_link(manifest: Manifest) -> Markup:
    name = Markup(as_text(manifest.source_repo))
    if not _REPO.fullmatch(manifest.source_repo) or not _SHA.fullmatch(manifest.source_sha):
        return name
    return Markup(f"[{name}]({HUB_URI}{manifest.source_repo}/tree/{manifest.source_sha})")


def _recipe(manifest: Manifest) -> str:
    words = ["swp", "extract", manifest.source]
    words += ["--layout", manifest.layout_asked] if manifest.layout_asked else []
    words += [] if manifest.compared else ["--no-compare"]
    return shlex.join(words)


def _line(value: object) -> Markup:
    """A line of a fenced code block: such a block ends only at a line that begins with its fence."""
    return Markup(_one_line(str(value)))


def _dims(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 10**9 else f"{nbytes / 1e6:.1f} MB"


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percentages(shares: Sequence[float]) -> Markup:
    return Markup(" ".join(f"{share:.0%}" for share in shares))
