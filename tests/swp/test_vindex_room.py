"""A model is fetched whole for larql: whether there is room for it is found out before, not after hours."""

import shutil
from pathlib import Path
from threading import Event

import pytest
from hub_loopback import Repo
from larql_standin import FILES, MODEL, write_larql
from publishing import desk

from skulk_core.errors import NotEnoughSpace
from skulk_core.hub.refs import RepoRef
from swp.vindex import Wish, extract, make_plan, open_source
from swp.vindex_program import identify


def test_a_full_disk_is_told_before_the_model_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    larql, usage = write_larql(tmp_path / "bin"), shutil.disk_usage(tmp_path)
    with desk(tmp_path, monkeypatch) as made:
        made.hub.repos[MODEL] = Repo(dict(FILES))
        plan = make_plan(open_source(RepoRef(MODEL), Event()), Wish(), tmp_path / "out")
        free_nbytes = (
            (64 << 20) + len(FILES["model.safetensors"]) - 1
        )  # one byte less than the weights and what is spare
        monkeypatch.setattr("swp.out_folder.shutil.disk_usage", lambda _: usage._replace(free=free_nbytes))
        with pytest.raises(NotEnoughSpace):
            extract(plan, larql.path, identify(larql.path), "swp test")
        assert not any(
            request.path.endswith("model.safetensors") for request in made.hub.requests if request.method == "GET"
        )
        assert larql.runs == []
        assert not (tmp_path / "out").exists()
        monkeypatch.setattr("swp.out_folder.shutil.disk_usage", lambda _: usage._replace(free=free_nbytes + 1))
        extract(plan, larql.path, identify(larql.path), "swp test")
    assert (tmp_path / "out" / "provenance.json").exists()
