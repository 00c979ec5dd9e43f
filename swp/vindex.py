"""Making a vindex: from a model at one commit, by the program larql, to a folder with manifest, card and licences.

Everything is written in a folder beside the target and renamed into place when it is complete. larql takes a model by
its name from the Hub's cache, whichever commit lies there; so it is given a cache of its own that holds links to the
files of the one commit, and is told to stay offline.
"""

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache

from skulk_core.errors import FileError, FormatError, OptionError, VindexError
from skulk_core.formats.catalog import WHOLE
from skulk_core.formats.provenance import Licence
from skulk_core.formats.statement import MANIFEST_FILE, FileRecord
from skulk_core.formats.vindex import INDEX_FILE, Program, VindexManifest, read_vindex
from skulk_core.hub.licences import CARD_FILE, licence_files, read_licence
from skulk_core.hub.progress import OnProgress
from skulk_core.hub.ranges import HubFiles, read_small
from skulk_core.hub.refs import RepoRef
from skulk_core.hub.snapshot import fetch_model
from swp.licence import require_licence
from swp.out_folder import check_space, locked, write_file
from swp.plan import repo_name
from swp.vindex_card import render_vindex
from swp.vindex_check import check_index, check_vindex, record_folder
from swp.vindex_program import LARQL, run_program

QUANT = "q4k"

_WHOLE_FOLDER = "whole.vindex"
_MADE_FOLDER = "made.vindex"
_CACHE_FOLDER = "hub"


@dataclass(frozen=True)
class Wish:
    """What was asked for. `slice` is a preset of larql's, or `WHOLE`."""

    quant: str = QUANT
    slice: str = WHOLE
    licence_unknown: bool = False


@dataclass(frozen=True)
class Shown:
    """How a person is kept informed: progress only inside `working()`, since larql writes to the same terminal."""

    working: Callable[[], AbstractContextManager[None]] = nullcontext
    on_progress: OnProgress | None = None
    note: Callable[[str], None] = lambda _: None


NOTHING_SHOWN = Shown()


@dataclass(frozen=True)
class Source:
    """What a vindex is made from: a model's files at one commit, or (`whole`) a vindex of it that is on disk."""

    repo: str
    sha: str
    files: HubFiles
    licence: Licence
    whole: VindexManifest | None = None
    folder: Path | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.sha}"


@dataclass(frozen=True)
class Plan:
    """The exact steps, decided before anything is done. `commands` run in the folder `work`, in order.

    `target` is absolute.
    """

    source: Source
    wish: Wish
    target: Path
    commands: tuple[tuple[str, ...], ...]

    @property
    def work(self) -> Path:
        """The folder in which it is made; the same for the same target, and removed at the end."""
        return self.target.parent / f".{self.target.name}.swp-work"

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        return {
            "source": str(self.source),
            "quant": self.wish.quant,
            "slice": self.wish.slice,
            "out": str(self.target),
            "work": str(self.work),
            "environment": cache_settings(self.work) if self.source.whole is None else {},
            "commands": [list(command) for command in self.commands],
            "licences": list(licence_files(self.source.files.names)),
        }


def open_source(ref: RepoRef, cancel: Event, on_wait: Callable[[str], None] = lambda _: None) -> Source:
    """The model at the commit that `ref` is now. `on_wait` is told of every wait for the Hub. Raises our Hub errors."""
    files = HubFiles.at(ref, cancel, on_wait)
    licence = read_licence(read_small(files, CARD_FILE)) if CARD_FILE in files.names else Licence()
    return Source(files.repo, files.sha, files, licence)


def open_whole(folder: Path, cancel: Event) -> Source:
    """A whole vindex of ours, to cut slices from. Raises `VindexError` for a slice, our Hub errors, file errors."""
    manifest = read_vindex(folder)
    if not manifest.is_whole:
        raise VindexError(folder, f"is the slice {manifest.slice}; slices are cut from a whole vindex")
    opened = open_source(RepoRef(manifest.source_repo, manifest.source_sha), cancel)
    return Source(opened.repo, opened.sha, opened.files, manifest.licence, manifest, folder)


def make_plan(source: Source, wish: Wish, target: Path | None) -> Plan:
    """Decide the steps. Raises `OptionError` for wishes that the source cannot fulfil, `LicenceUnknown`."""
    require_licence(source.licence, str(source), wish.licence_unknown)
    whole, cut = source.whole, wish.slice != WHOLE
    if whole is not None and not cut:
        raise OptionError("--slice", wish.slice, f"{source.folder} is whole already; name a slice to cut from it")
    if whole is not None and whole.quant != wish.quant:
        raise OptionError("--quant", wish.quant, f"{source.folder} is {whole.quant}; extract the model again")
    extracted = _WHOLE_FOLDER if cut else _MADE_FOLDER
    extract = (LARQL, "extract", source.repo, "-o", extracted, "--quant", wish.quant)
    slicing = (LARQL, "slice", _WHOLE_FOLDER, "-o", _MADE_FOLDER, "--preset", wish.slice)
    commands = (*(() if whole else (extract,)), *((slicing,) if cut else ()))
    named = target or Path(default_name(source.repo, wish))
    return Plan(source, wish, Path(os.path.abspath(named)), commands)


def default_name(repo: str, wish: Wish) -> str:
    """The repository's name in lower case, dots to dashes, then quantisation, slice and `vindex`."""
    return repo_name(repo, vindex_suffix(wish.quant, wish.slice))


def vindex_suffix(quant: str, slice_name: str) -> str:
    """What a vindex adds to the name of its model."""
    parts = [quant, *([] if slice_name == WHOLE else [slice_name]), "vindex"]
    return "-".join(parts).lower().replace("_", "-").replace(".", "-")


def extract(plan: Plan, executable: Path, program: Program, tool: str, shown: Shown = NOTHING_SHOWN) -> VindexManifest:
    """Carry out the plan; the folder `plan.target` is there, complete, or not at all.

    A target that holds this very vindex, with every digest right, is left as it is. Raises `OptionError` for one that
    holds something else, `ProgramError`, `VindexError`, our Hub errors and file errors.
    """
    with locked(plan.target, shown.on_progress):
        if (done := _done_before(plan, program)) is not None:
            return done
        _remove(plan.work)
        try:
            plan.work.mkdir()
            commands = _make(plan, executable, program, shown)
            with shown.working():
                return _finish(plan, program, commands, tool, shown.on_progress)
        except OSError as error:
            raise FileError(error.filename or plan.work, f"cannot be written: {error.strerror or error}") from error
        finally:
            _remove(plan.work)


def cache_settings(work: Path) -> dict[str, str]:
    """The environment that shows a program the one commit, and nothing else, of the Hub."""
    return {"HF_HOME": str(work), "HF_HUB_CACHE": str(work / _CACHE_FOLDER), "HF_HUB_OFFLINE": "1"}


def _done_before(plan: Plan, program: Program) -> VindexManifest | None:
    """The manifest of a target that is complete. Raises `OptionError` for one that holds anything else."""
    # it may be gone: an unfinished run of another process takes its empty folder away
    if not plan.target.is_dir() or not any(plan.target.iterdir()):
        return None
    try:
        held = read_vindex(plan.target)
    except (FileError, FormatError):
        raise OptionError("--out", plan.target, "is not empty, and holds no vindex of ours") from None
    wanted = (plan.source.repo, plan.source.sha, plan.wish.quant, plan.wish.slice, program)
    if (held.source_repo, held.source_sha, held.quant, held.slice, held.program) != wanted:
        said = f"{held.source}, {held.quant}, {held.slice}, made by {held.program}"
        raise OptionError("--out", plan.target, f"holds another vindex ({said}); choose another folder")
    failed = [check for check in check_vindex(plan.target, held) if not check.ok]
    if failed:
        raise VindexError(
            plan.target, "is damaged; remove it, and extract again", [f"{c.name}: {c.detail}" for c in failed]
        )
    return held


def _make(plan: Plan, executable: Path, program: Program, shown: Shown) -> tuple[tuple[str, ...], ...]:
    """Run the commands; all those that led to what was made, also of the whole vindex it was cut from."""
    source = plan.source
    before: tuple[tuple[str, ...], ...] = ()
    changes: dict[str, str] = {}
    if source.whole is None:
        with shown.working():
            _check_room(source)
            snapshot = fetch_model(RepoRef(source.repo, source.sha), shown.on_progress)
        _link_cache(plan.work / _CACHE_FOLDER, source, snapshot.path)
        changes = cache_settings(plan.work)
    else:
        assert source.folder is not None
        if source.whole.program != program:
            reason = f"was made by {source.whole.program}, not by this {program}: extract the model again"
            raise VindexError(source.folder, reason)
        with shown.working():
            checks = check_vindex(source.folder, source.whole, shown.on_progress)
        if failed := [check for check in checks if not check.ok]:
            raise VindexError(source.folder, "is damaged", [f"{check.name}: {check.detail}" for check in failed])
        (plan.work / _WHOLE_FOLDER).symlink_to(source.folder.resolve(), target_is_directory=True)
        before = source.whole.commands
    for command in plan.commands:
        shown.note(f"running {shlex.join(command)}")
        run_program(executable, command[1:], plan.work, changes)
    return (*before, *plan.commands)


def _check_room(source: Source) -> None:
    """Raise `NotEnoughSpace` unless the cache has room for the weights that are not in it.

    How large the vindex will be is known to larql alone.
    """
    weights = [name for name in source.files.names if name.endswith(".safetensors") and "/" not in name]
    missing = [n for n in weights if not isinstance(try_to_load_from_cache(source.repo, n, revision=source.sha), str)]
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    check_space([(existing, sum(source.files.stat(name).nbytes for name in missing))])


def _finish(
    plan: Plan,
    program: Program,
    commands: tuple[tuple[str, ...], ...],
    tool: str,
    on_progress: OnProgress | None,
) -> VindexManifest:
    """Check what was made, add licences, manifest and card, and put it into place."""
    made, source = plan.work / _MADE_FOLDER, plan.source
    if made.is_symlink() or not (made / INDEX_FILE).is_file():
        raise VindexError(_MADE_FOLDER, f"{program} made no vindex: there is no {INDEX_FILE}")
    for name in (MANIFEST_FILE, CARD_FILE):
        if (made / name).exists():
            raise VindexError(_MADE_FOLDER, f"{program} made a file of a name that is ours", [name])
    files = record_folder(made, on_progress)
    check_index(made, files)
    manifest = VindexManifest(
        source_repo=source.repo,
        source_sha=source.sha,
        quant=plan.wish.quant,
        slice=plan.wish.slice,
        program=program,
        commands=commands,
        licence=source.licence,
        files=tuple(sorted((*files, *_add_licences(made, source.files, files)), key=lambda file: file.name)),
        tool=tool,
    )
    write_file(made / CARD_FILE, render_vindex(manifest))
    write_file(made / MANIFEST_FILE, manifest.to_json())
    # the empty folder that is locked gives way to the full one
    os.rename(made, plan.target)
    return manifest


def _add_licences(folder: Path, files: HubFiles, made: Sequence[FileRecord]) -> list[FileRecord]:
    """Copy upstream's licence files, byte for byte. Raises `VindexError` where larql made another file of the name."""
    theirs = {file.name.lower(): file for file in made}
    added = []
    for name in licence_files(files.names):
        content = read_small(files, name)
        if (there := theirs.get(name.lower())) is None:
            added.append(write_file(folder / name, content))
        elif (folder / there.name).read_bytes() != content:
            raise VindexError(_MADE_FOLDER, "larql made another file than upstream's", [there.name])
    return added


def _link_cache(cache: Path, source: Source, snapshot: Path) -> None:
    """A Hub cache in which `main` of the model is the one commit, its files links to those of `snapshot`."""
    repo = cache / f"models--{source.repo.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(source.sha)
    for file in sorted(path for path in snapshot.rglob("*") if path.is_file()):
        link = repo / "snapshots" / source.sha / file.relative_to(snapshot)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())


def _remove(folder: Path) -> None:
    """Remove a work folder, if there is one: what links lead to stays."""
    if folder.is_symlink() or folder.exists():
        shutil.rmtree(folder)
