"""From any model to its base, without a Hub: by its own name, its configuration, its names."""

import json
from pathlib import Path
from typing import Any

import pytest

from skulk_core.catalog import Outcome, Resolution, Rule, SidecarEntry, Subject, resolve
from skulk_core.catalog.names import core_name
from skulk_core.errors import ModelNameError, NotInCatalog
from skulk_core.formats.catalog import Fingerprint
from skulk_core.hub.refs import RepoRef
from skulk_core.hub.sources import ModelSource


def sidecar(base: str, repo: str, **shape: Any) -> SidecarEntry:
    known = Fingerprint(**shape) if shape else None
    return SidecarEntry(base=base, repo=repo, licence="mit", layout="x", fingerprint=known)


NINE = {"model_type": "qwen3_5", "hidden_size": 4096, "vocab_size": 248320, "num_hidden_layers": 32}
NEXT = {"model_type": "qwen3_next", "hidden_size": 2048, "vocab_size": 151936, "num_hidden_layers": 48}
ENTRIES = (
    sidecar("Qwen/Qwen3.5-9B-Base", "fox/qwen3-5-9b-base-mtp", **NINE),
    sidecar("Qwen/Qwen3.5-27B", "fox/qwen3-5-27b-mtp"),
    sidecar("nvidia/Super-120B-BF16", "fox/super-120b-bf16-mtp"),
    sidecar("deepseek-ai/DeepSeek-V4", "fox/deepseek-v4-mtp"),
    sidecar("Qwen/Next-80B-Instruct", "fox/next-80b-instruct-mtp", **NEXT, num_experts=512),
    sidecar("Qwen/Next-80B-Thinking", "fox/next-80b-thinking-mtp", **NEXT, num_experts=512),
)


def folder(tmp_path: Path, name: str, config: dict[str, Any] | None = None) -> Path:
    path = tmp_path / name
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def look_up(path: Path, *names: str) -> Resolution[SidecarEntry]:
    """A model whose card and configuration are in ``path``, known by ``names`` or by the folder's."""
    subject = Subject(str(path), names or (path.name,), path, path)
    return resolve(subject, ENTRIES)


def rules(found: Resolution[SidecarEntry]) -> list[tuple[Rule, Outcome]]:
    return [(step.rule, step.outcome) for step in found.steps]


def test_a_model_that_is_listed(tmp_path: Path) -> None:
    found = look_up(tmp_path, "qwen/qwen3.5-27b")
    assert (found.base, rules(found)) == ("Qwen/Qwen3.5-27B", [(Rule.LISTED, Outcome.FOUND)])
    assert found.because == "the catalog lists Qwen/Qwen3.5-27B"


def test_the_sidecars_own_repository(tmp_path: Path) -> None:
    found = look_up(tmp_path, "fox/Qwen3-5-27b-mtp")
    assert found.base == "Qwen/Qwen3.5-27B"
    assert found.because == "it is the sidecar of Qwen/Qwen3.5-27B"


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("mlx-community/Qwen3.5-27B-4bit", "Qwen/Qwen3.5-27B"),
        ("mlx-community/Qwen3.5-27B-MLX-8bit", "Qwen/Qwen3.5-27B"),
        ("mlx-community/qwen3.5-27b-mlx-4bit-gs32", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-AWQ", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-GPTQ-Int4", "Qwen/Qwen3.5-27B"),
        ("Qwen/Qwen3.5-27B-FP8", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-heretic-v2-mxfp4", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B_abliterated", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-i1-GGUF", "Qwen/Qwen3.5-27B"),
        ("someone/Qwen3.5-27B-exl3-4.5bpw", "Qwen/Qwen3.5-27B"),
        ("Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-9B-Base"),
        ("mlx-community/Qwen3.5-9B-bf16", "Qwen/Qwen3.5-9B-Base"),
        ("mlx-community/Super-120B-4bit", "nvidia/Super-120B-BF16"),
        ("mlx-community/DeepSeek-V4-4bit", "deepseek-ai/DeepSeek-V4"),
        ("mlx-community/Next-80B-Thinking-4bit", "Qwen/Next-80B-Thinking"),
        ("Qwen3.5-27B-4bit", "Qwen/Qwen3.5-27B"),
    ],
)
def test_a_name_is_matched_without_its_suffixes(tmp_path: Path, name: str, base: str) -> None:
    found = look_up(tmp_path, name)
    assert found.base == base
    assert rules(found)[-1] == (Rule.NAME, Outcome.FOUND)
    assert found.because == f"{name} without its suffixes is {base}"


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3.5-7B",
        "Qwen/Qwen3.5-127B-4bit",
        "Qwen/Next-80B-4bit",
        "deepseek-ai/DeepSeek-V3",
        "deepseek-ai/DeepSeek",
        "Qwen/Qwen3.5-27B-mtp",
        "x",
    ],
)
def test_another_model_is_not_matched(tmp_path: Path, name: str) -> None:
    found = look_up(tmp_path, name)
    assert (found.base, found.entries, found.candidates) == (None, (), ())
    assert [rule for rule, _ in rules(found)] == list(Rule)
    with pytest.raises(NotInCatalog, match="no name is like one"):
        found.require()


def test_a_name_that_is_only_suffixes_is_left_whole() -> None:
    assert core_name("owner/4bit") == "4bit"
    assert core_name("-4bit") == "-4bit"


@pytest.mark.parametrize(
    "config",
    [
        {**NINE, "num_attention_heads": 16},
        {"model_type": "qwen3_5", "text_config": {**NINE, "model_type": "qwen3_5_text"}, "vision_config": {}},
        {"text_config": {**NINE, "model_type": "qwen3_5_text"}},
        {**NINE, "quantization": {"bits": 4, "group_size": 64}},
    ],
)
def test_a_fine_tune_without_a_telling_name_is_known_by_its_configuration(tmp_path: Path, config: Any) -> None:
    found = look_up(folder(tmp_path, "my-tune", config))
    assert found.base == "Qwen/Qwen3.5-9B-Base"
    assert rules(found)[-1] == (Rule.CONFIG, Outcome.FOUND)
    assert found.because.startswith("its configuration (qwen3_5, hidden_size 4096, vocab_size 248320")


def test_two_models_of_one_shape_are_not_told_apart_by_it(tmp_path: Path) -> None:
    found = look_up(folder(tmp_path, "my-tune", {**NEXT, "num_experts": 512}))
    both = ("Qwen/Next-80B-Instruct", "Qwen/Next-80B-Thinking")
    assert (found.base, found.candidates) == (None, both)
    assert (Rule.CONFIG, Outcome.AMBIGUOUS) in rules(found)
    with pytest.raises(NotInCatalog, match="Qwen/Next-80B-Instruct or Qwen/Next-80B-Thinking") as caught:
        found.require()
    assert caught.value.candidates == both


def test_a_name_decides_between_models_of_one_shape(tmp_path: Path) -> None:
    found = look_up(folder(tmp_path, "Next-80B-Thinking-4bit", {**NEXT, "n_routed_experts": 512}))
    assert found.base == "Qwen/Next-80B-Thinking"
    assert found.because.endswith("its configuration agrees")


def test_a_name_outside_the_candidates_decides_nothing(tmp_path: Path) -> None:
    found = look_up(folder(tmp_path, "Qwen3.5-27B-4bit", {**NEXT, "num_experts": 512}))
    assert found.base is None
    assert len(found.candidates) == 2


def test_a_name_that_the_configuration_contradicts_is_refused(tmp_path: Path) -> None:
    """A pruned model keeps its name; the head of the whole one would not fit."""
    found = look_up(folder(tmp_path, "Qwen3.5-9B-4bit", {**NINE, "num_hidden_layers": 20}))
    assert found.base is None
    assert "looks like Qwen/Qwen3.5-9B-Base, but it is another: num_hidden_layers 20, not 32" in found.steps[-1].said


def test_more_tokens_are_no_contradiction(tmp_path: Path) -> None:
    found = look_up(folder(tmp_path, "Qwen3.5-9B-tools-4bit", {**NINE, "vocab_size": 248323}), "a/Qwen3.5-9B-4bit")
    assert found.base == "Qwen/Qwen3.5-9B-Base"
    config = next(step for step in found.steps if step.rule is Rule.CONFIG)
    assert "nearest, but for vocab_size 248323, not 248320" in config.said


def test_the_name_in_a_configuration_helps(tmp_path: Path) -> None:
    found = look_up(folder(tmp_path, "merged", {"_name_or_path": "someone/Qwen3.5-27B-abliterated"}))
    assert found.base == "Qwen/Qwen3.5-27B"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is no object"),
        ("{", "cannot be read"),
        ('{"model_type": 3}', "names no model_type"),
        ('{"model_type": "x", "hidden_size": true, "vocab_size": 0}', "no hidden_size and no num_hidden_layers and no"),
    ],
)
def test_a_configuration_that_is_of_no_use_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = folder(tmp_path, "m")
    (path / "config.json").write_text(text)
    step = next(step for step in look_up(path).steps if step.rule is Rule.CONFIG)
    assert step.outcome is Outcome.NOTHING
    assert said in step.said


def test_only_what_was_asked_for_is_resolved(tmp_path: Path) -> None:
    found = resolve(Subject("x", ("Qwen/Qwen3.5-27B",), tmp_path, tmp_path), ())
    assert found.entries == ()


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-27B", "main"),
        ("Qwen/Qwen3.5-27B@v1", "Qwen/Qwen3.5-27B", "v1"),
        ("https://huggingface.co/Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-27B", "main"),
        ("https://huggingface.co/Qwen/Qwen3.5-27B/", "Qwen/Qwen3.5-27B", "main"),
        ("https://huggingface.co/Qwen/Qwen3.5-27B?library=mlx#use", "Qwen/Qwen3.5-27B", "main"),
        ("https://huggingface.co/Qwen/Qwen3.5-27B/tree/v1", "Qwen/Qwen3.5-27B", "v1"),
        ("https://huggingface.co/Qwen/Qwen3.5-27B/commit/" + "a" * 40, "Qwen/Qwen3.5-27B", "a" * 40),
        ("https://huggingface.co/Qwen/Qwen3.5-27B/blob/refs%2Fpr%2F1/config.json", "Qwen/Qwen3.5-27B", "refs/pr/1"),
        ("hf://Qwen/Qwen3.5-27B@v1", "Qwen/Qwen3.5-27B", "v1"),
        ("hf.co/Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-27B", "main"),
    ],
)
def test_addresses_of_the_hub_are_repositories(text: str, repo: str, revision: str) -> None:
    subject = Subject.parse(text)
    assert (subject.asked, subject.names, subject.card) == (text, (repo,), RepoRef(repo, revision))
    assert subject.config == subject.card


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://example.com/a/b", "not the address of a repository on the Hub"),
        ("https://huggingface.co/Qwen", "not the address of a repository"),
        ("https://huggingface.co/datasets/a/b", "the address of a dataset, not of a model"),
        ("https://huggingface.co/a/b/discussions/3", "not the address"),
        ("./nowhere", "no such folder"),
        ("demo", "comes with its own sidecar"),
    ],
)
def test_what_is_no_model_says_why(text: str, reason: str) -> None:
    with pytest.raises(ModelNameError, match=reason):
        Subject.parse(text)


def test_a_folder_goes_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = folder(tmp_path, "Qwen3.5-27B-4bit")
    monkeypatch.chdir(here)
    assert Subject.parse(".").names == ("Qwen3.5-27B-4bit",)


def test_a_snapshot_in_the_hubs_cache_goes_by_its_repository(tmp_path: Path) -> None:
    path = folder(tmp_path, "hub/models--mlx-community--Qwen3.5-27B-4bit/snapshots/" + "b" * 40)
    assert Subject.parse(str(path)).names == ("mlx-community/Qwen3.5-27B-4bit",)


def test_a_downloaded_model_is_read_where_it_lies(tmp_path: Path) -> None:
    subject = Subject.of(ModelSource(RepoRef("a/b", "v1"), tmp_path, "c" * 40))
    assert (subject.names, subject.card, subject.config) == (("a/b",), RepoRef("a/b", "v1"), tmp_path)
