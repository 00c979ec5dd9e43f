"""What a receipt says of machine, model and sidecar. Nothing that names a person or a place: no host, no folders."""

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from skulk_core.formats.receipt_facts import MachineRecord, ModelRecord, SidecarRecord
from skulk_core.formats.statement import record_file
from skulk_core.hub.refs import DemoRef, RepoRef
from skulk_core.hub.sources import ModelSource
from skulk_core.models.loading import LoadedModel, text_config
from skulk_core.runtime import blas
from skulk_core.runtime.device import device_facts
from skulk_core.types import Conventions

_CPUINFO = Path("/proc/cpuinfo")


def machine_record() -> MachineRecord:
    """The machine and what MLX computes with."""
    facts, choice = device_facts(), blas.prepare()
    return MachineRecord(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_nbytes=facts.total_nbytes,
        backend=facts.backend.value,
        device=facts.name,
        blas=choice.name,
        blas_threads=choice.threads,
    )


def model_record(
    source: ModelSource, model: LoadedModel, *, dtype: str | None = None, nbytes: int | None = None
) -> ModelRecord:
    """The target as it was loaded; ``dtype`` and ``nbytes`` where other hosts loaded it, ``model`` being an outline."""
    target, packed = model.target, model.quantization
    words = [] if packed is None else [f"{packed.get('bits', '?')} bits", f"groups of {packed.get('group_size', '?')}"]
    return ModelRecord(
        name=_name(source),
        sha=source.sha,
        model_type=str(text_config(model.config).get("model_type") or model.config.get("model_type", "")),
        dtype=dtype or str(target.dtype).rpartition(".")[2],
        quantization=", ".join(words),
        nbytes=model.nbytes if nbytes is None else nbytes,
        num_layers=target.num_layers,
        hidden_size=target.hidden_size,
        vocab_size=target.vocab_size,
    )


def sidecar_record(
    name: str, origin: Path | None, layout: str, precision: str, conventions: Conventions | None = None
) -> SidecarRecord:
    """A draft head that was loaded from ``origin``: a file, whose digest is taken, or a checkpoint's folder, or none.

    Raises `FileError` if the file cannot be read any more.
    """
    is_file = origin is not None and origin.is_file()
    sha256 = record_file(origin.parent, origin.name).sha256 if origin is not None and is_file else ""
    # OWNER/NAME is a path only where there is one
    is_path = name.startswith(("/", "~", ".")) or name.count("/") > 1 or os.path.lexists(name)
    wired = {} if conventions is None else conventions_record(conventions)
    return SidecarRecord(Path(name).name if is_path else name, sha256, layout, precision, wired)


def conventions_record(conventions: Conventions) -> dict[str, str]:
    """By name, as `--convention` has them."""
    return {name: str(getattr(value, "value", value)) for name, value in asdict(conventions).items()}


def _name(source: ModelSource) -> str:
    match source.ref:
        case RepoRef(repo):
            return repo
        case DemoRef():
            return str(source.ref)
    return source.path.resolve().name


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    if sys.platform == "linux" and _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
