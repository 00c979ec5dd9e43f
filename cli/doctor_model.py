"""`skulk doctor MODEL`: how the model's head is wired, by measurement, beside what is said of it."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from cli.loading import load_backend
from cli.probing import as_json, in_words, measuring, summary, table
from cli.render import Reporter, out, show, visible
from skulk_core.catalog import Catalog
from skulk_core.errors import NoDraftHead
from skulk_core.hub.refs import parse_sidecar, parse_trunk
from skulk_core.hub.sources import locate_model
from skulk_core.runtime import blas
from skulk_core.runtime.device import auto_dtype

if TYPE_CHECKING:
    from skulk_core.heads.verdict import Probe
    from skulk_core.types import Conventions

JSON_SCHEMA = 1


def examine_head(
    model_name: str, sidecar: str | None, *, dtype: str, head_precision: str, json_output: bool, reporter: Reporter
) -> None:
    """Measure and tell. Raises what finding, loading and `probe` raise, and `HeadDoesNotFit` after telling."""
    ref, chosen = parse_trunk(model_name), None if sidecar is None else parse_sidecar(sidecar)
    catalog = Catalog.known()
    with reporter.working():
        reporter.step(f"loading {ref}")
        load_backend(reporter)
        from skulk_core.heads.finding import NoHead, find_head
        from skulk_core.heads.loading import stated
        from skulk_core.heads.probe import probe
        from skulk_core.models import loading

        source = locate_model(ref, reporter.bytes)
        reporter.step(f"loading {ref}")
        model = loading.load(source.path, auto_dtype() if dtype == "auto" else dtype)
        blas.set_threads(blas.threads_for(model.target.hidden_size))
        found = find_head(source, model.headers, chosen, catalog, reporter.bytes)
        if isinstance(found, NoHead):
            raise NoDraftHead(str(source), found.looked_in)
        said = stated(model, found.files, found.conventions)
        measured = probe(model, found.files, precision=head_precision, progress=measuring(reporter))
    if json_output:
        known = (
            None
            if said is None
            else {"from": said[1], "conventions": asdict(said[0]), "agrees": _agrees(measured, said[0])}
        )
        answer = {
            "schema": JSON_SCHEMA,
            "model": str(source),
            "sidecar": found.name,
            **as_json(measured),
            "stated": known,
        }
        out(json.dumps(answer) + "\n")
    else:
        lines = [f"{found.name}: {found.because}", summary(measured), _beside(measured, said)]
        show(Group(table(measured), *(Text(visible(line)) for line in lines)))
    measured.require(found.files.origin)


def _agrees(probe: "Probe", said: "Conventions") -> bool:
    """Whether what is said is picked, or measures like it."""
    return said in [candidate.conventions for candidate in probe.alike]


def _beside(probe: "Probe", said: "tuple[Conventions, str] | None") -> str:
    """How the measurement stands to what is said."""
    if said is None:
        return "stated: nothing, neither by its file nor by the catalog"
    conventions, who = said
    if probe.picked is None:
        return f"stated ({who}): {in_words(conventions)}"
    if conventions == probe.picked.conventions:
        return f"stated ({who}): the same"
    alike = "which measures alike" if _agrees(probe, conventions) else "which is clearly worse"
    return f"stated ({who}): {in_words(conventions)}, {alike}"
