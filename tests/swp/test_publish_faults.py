"""What publishing does when the Hub, the way to it, or the login fails: said plainly, and never half done silently."""

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import httpx2
import pytest
from hub_loopback import WAIT_S
from hub_writing import TOKEN, USER, Fault
from publishing import REPO, Desk, desk
from sidecar_folder import write_folder

from skulk_core.errors import (
    HubBusy,
    HubError,
    HubUnreachable,
    LoginError,
    OptionError,
    PermissionDenied,
    PublishConflict,
    RepoNotFound,
    SkulkError,
)
from skulk_core.formats.provenance import Licence
from swp.publish import apply, permitted_repo

API = f"/api/models/{REPO}"
COMMIT = f"{API}/commit/main"
CREATE = "/api/repos/create"
BATCH = rf"/{REPO}\.git/info/lfs/objects/batch"
STORE = "/store/.*"
SOURCE = "Upstream/Tiny.Model-1B"


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with desk(tmp_path, monkeypatch) as made:
        yield made


def published(at: Desk) -> bool:
    repo = at.hub.repos.get(REPO)
    return repo is not None and repo.files.get("mtp.safetensors") == (at.folder / "mtp.safetensors").read_bytes()


# questions


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("GET", API, status=401, times=9), LoginError),
        (Fault("GET", API, status=403, times=9), PermissionDenied),
        (Fault("GET", API, status=404, times=9), RepoNotFound),  # a proxy's, without the Hub's own code
        (Fault("GET", API, status=403, code="GatedRepo", times=9), PermissionDenied),
        (Fault("GET", API, status=401, code="RepoNotFound", times=9), LoginError),
        (Fault("GET", API, status=429, times=9), HubBusy),
        (Fault("GET", API, status=500, times=9), HubBusy),
        (Fault("GET", API, lost=True, times=9), HubBusy),
        (Fault("GET", API + "/tree/.*", status=503, times=9), HubBusy),
        (Fault("GET", f"/{REPO}/resolve/.*", status=403, times=9), PermissionDenied),
        (Fault("HEAD", f"/{REPO}/resolve/.*", status=500, times=99), HubBusy),
    ],
)
def test_a_failed_question_is_never_taken_for_nothing_there(at: Desk, fault: Fault, error: type[SkulkError]) -> None:
    """Publishing on such an answer could overwrite what somebody relies on."""
    at.publish()
    before = at.hub.writes()
    write_folder(at.folder, tensors={"mtp.fc.weight": bytes(64), "mtp.norm.weight": bytes(8)})
    at.hub.faults.append(fault)
    with pytest.raises(error) as caught:
        at.publish(force=True)
    assert REPO in str(caught.value)
    assert at.hub.writes() == before


def test_a_login_page_is_not_taken_for_nothing_there(at: Desk) -> None:
    at.hub.login_page = True
    with pytest.raises(HubBusy, match="not a Hub"):
        at.publish()


def test_no_network(at: Desk) -> None:
    at.hub.stop()
    with pytest.raises(HubBusy, match="no connection"):
        at.publish()


def test_offline_mode_is_named(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        at.publish()


def test_a_renamed_repository_is_not_written_to(at: Desk) -> None:
    """The Hub leads the old name to the new repository, which its owner renamed for a reason."""
    at.publish()
    at.hub.repos["org/renamed"] = at.hub.repos[REPO]
    at.hub.renamed[REPO] = "org/renamed"
    with pytest.raises(PublishConflict, match="org/renamed"):
        at.publish(force=True)


# changes


@pytest.mark.parametrize("path", [CREATE, f"{API}/preupload/main", BATCH, COMMIT])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, LoginError),
        (403, PermissionDenied),
        (404, RepoNotFound),
        (409, PublishConflict),
        (412, PublishConflict),
        (400, HubError),
    ],
)
def test_a_refusal_is_said_with_repository_and_permission(
    at: Desk, path: str, status: int, error: type[SkulkError]
) -> None:
    at.hub.faults.append(Fault("POST", path, status=status, times=9))
    with pytest.raises(error) as caught:
        at.publish()
    assert REPO in str(caught.value)
    assert str(status) in str(caught.value)
    if isinstance(caught.value, PermissionDenied):
        assert "write access" in caught.value.permission
    assert at.waits == []  # asking again would be of no use
    assert not published(at)
    assert not at.catalog.exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", API),
        ("POST", CREATE),
        ("POST", f"{API}/preupload/main"),
        ("POST", BATCH),
        ("PUT", STORE),
        ("POST", f"/lfs-verify/{REPO}"),
        ("POST", COMMIT),
        ("POST", "/api/collections"),
        ("POST", "/api/collections/.*/items"),
    ],
)
def test_a_busy_hub_is_asked_again_when_it_says(at: Desk, method: str, path: str) -> None:
    at.hub.faults += [
        Fault(method, path, status=429, headers={"Retry-After": "7"}),
        Fault(method, path, status=503),
    ]
    at.publish(collection="Heads")
    assert published(at)
    assert any(7 <= wait <= 8 for wait in at.waits), at.waits
    assert len(at.waits) == 2  # once for each answer: ours and the client's retries do not multiply
    assert len(at.hub.repo(REPO).commits) == 2


def test_a_card_check_is_asked_again_too(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", "/api/validate-yaml", status=503))
    at.publish()
    assert published(at)


def test_a_hub_that_stays_busy_is_given_up(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", COMMIT, status=503, times=99))
    with pytest.raises(HubBusy, match="503"):
        at.publish()
    assert len(at.waits) == 4
    assert at.waits == sorted(at.waits)
    assert not published(at)


def test_a_very_long_wait_is_not_waited(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", CREATE, status=429, headers={"Retry-After": "86400"}, times=9))
    with pytest.raises(HubBusy, match="429"):
        at.publish()
    assert at.waits == []


def test_a_cut_upload_is_sent_again(at: Desk) -> None:
    at.hub.faults.append(Fault("PUT", STORE, cut=100))
    at.publish()
    assert published(at)
    assert len(at.hub.uploads()) == 2


def test_of_a_large_file_only_the_cut_part_is_sent_again(at: Desk) -> None:
    write_folder(at.folder, padding=300_000)
    at.hub.part_nbytes = 100_000
    at.hub.faults.append(Fault("PUT", STORE + "/part/2", cut=1000))
    at.publish()
    assert published(at)
    sent = [request.path.rpartition("/")[2] for request in at.hub.uploads()]
    assert sent == ["1", "2", "2", "3", "4"]


@pytest.mark.parametrize("etag", ["", "0" * 32])
def test_a_part_that_the_storage_does_not_confirm_is_not_committed(at: Desk, etag: str) -> None:
    write_folder(at.folder, padding=300_000)
    at.hub.part_nbytes = 100_000
    at.hub.faults.append(Fault("PUT", STORE + "/part/2", etag=etag))
    with pytest.raises(HubError):
        at.publish()
    assert not published(at)


def test_what_was_uploaded_is_not_uploaded_again(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", COMMIT, status=503, times=5))
    with pytest.raises(HubBusy):
        at.publish()
    assert len(at.hub.uploads()) == 1
    at.publish()
    assert published(at)
    assert len(at.hub.uploads()) == 1


def test_a_commit_whose_answer_was_lost_is_not_made_twice(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", COMMIT, lost=True))
    done = at.publish()
    assert len(at.hub.repo(REPO).commits) == 2
    assert done.commit == at.hub.repo(REPO).sha


def test_a_repository_that_is_not_seen_at_once_is_waited_for(at: Desk) -> None:
    plan = at.plan()
    at.hub.faults.append(Fault("GET", API, status=404, code="RepoNotFound"))
    apply(plan, at.writer, at.catalog, at.notes.append)
    assert published(at)


def test_a_creation_whose_answer_was_lost_is_taken_up(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", CREATE, lost=True))
    at.publish()
    assert published(at)


def test_a_repository_that_somebody_makes_meanwhile_is_not_taken_over(at: Desk) -> None:
    plan = at.plan()
    at.publish()
    with pytest.raises(PublishConflict, match="409"):
        apply(plan, at.writer, at.catalog, at.notes.append)
    assert len(at.hub.repo(REPO).commits) == 2


def test_a_commit_that_somebody_makes_meanwhile_is_not_overwritten(at: Desk) -> None:
    def meanwhile() -> None:
        repo = at.hub.repo(REPO)
        repo.commit({**repo.files, "README.md": b"theirs"}, "theirs")

    at.hub.faults.append(Fault("POST", COMMIT, before=meanwhile))
    with pytest.raises(PublishConflict, match="412"):
        at.publish()
    assert at.hub.repo(REPO).commits[-1].message == "theirs"
    assert at.hub.repo(REPO).files["README.md"] == b"theirs"


@pytest.mark.parametrize(("method", "path"), [("POST", COMMIT), ("PUT", STORE), ("GET", API)])
def test_a_hub_that_stops_answering_is_asked_again(
    at: Desk, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client by itself would wait for ever."""
    monkeypatch.setattr("swp.hub_write._TIMEOUT", httpx2.Timeout(0.5))
    published_after_all = Event()
    at.hub.faults.append(Fault(method, path, before=lambda: published_after_all.wait(WAIT_S)))
    try:
        at.publish()
    finally:
        published_after_all.set()
    assert published(at)
    assert len(at.hub.repo(REPO).commits) == 2


def test_two_who_publish_the_same_at_once_both_succeed(at: Desk) -> None:
    at.hub.faults.append(Fault("POST", COMMIT, before=at.publish))
    done = at.publish()
    assert len(at.hub.repo(REPO).commits) == 2
    assert done.commit == at.hub.repo(REPO).sha


def test_a_card_that_the_hub_does_not_accept_is_found_before_anything_is_created(at: Desk) -> None:
    write_folder(at.folder, licence=Licence("no-such-licence"))
    with pytest.raises(HubError, match="metadata: .*license"):
        at.publish()
    assert at.hub.writes() == []


def test_a_login_that_expires_on_the_way(at: Desk) -> None:
    def expire() -> None:
        at.hub.token = "hf_another"

    at.hub.faults.append(Fault("PUT", STORE, before=expire))
    with pytest.raises(LoginError, match="expired"):
        at.publish()
    assert not published(at)
    at.hub.token = TOKEN
    at.publish()
    assert published(at)


# the login


def test_the_token_goes_to_the_hub_and_nowhere_else(at: Desk) -> None:
    """A storage's address may be anywhere."""
    at.publish()
    assert at.hub.stored_with_token == []


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        (TOKEN, None),
        (TOKEN, Fault("GET", API, status=500, times=9)),
        (TOKEN, Fault("POST", CREATE, status=403, times=9)),
        (TOKEN, Fault("PUT", STORE, cut=10, times=99)),
        (TOKEN, Fault("POST", COMMIT, lost=True, times=99)),
        ("hf_wrongButStillSecret", None),
        ("hf_secret\nwith a line break", None),
        ("hf_sécret", None),
    ],
)
def test_the_token_is_in_no_message_log_or_exception(
    at: Desk, token: str, fault: Fault | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("huggingface_hub", "httpx", "httpcore", "httpx2", "httpcore2"):
        logging.getLogger(name).addHandler(caplog.handler)
    at.token = token
    at.hub.faults += [fault] if fault else []
    said = []
    try:
        permitted_repo(at.writer, SOURCE, "org", None)
        at.publish()
    except SkulkError as error:
        seen: BaseException | None = error
        while seen is not None:
            said.append(repr(seen) + str(seen) + str(vars(seen)))
            seen = seen.__cause__ or seen.__context__
    assert said or (token == TOKEN and fault is None)
    everything = " ".join([*said, *at.notes, caplog.text])
    for part in token.split():
        if len(part) > 4:
            assert part not in everything
    for file in at.folder.parent.rglob("*"):
        if file.is_file():
            assert token.split()[0].encode() not in file.read_bytes()


def test_no_login(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    at.token = None  # type: ignore[assignment]
    with pytest.raises(LoginError, match="nobody is logged in"):
        permitted_repo(at.writer, SOURCE, "org", None)
    assert at.hub.requests == []


def test_a_refused_login(at: Desk) -> None:
    at.token = "hf_expired"
    with pytest.raises(LoginError, match="401"):
        permitted_repo(at.writer, SOURCE, "org", None)


def test_a_permitted_name(at: Desk) -> None:
    assert permitted_repo(at.writer, SOURCE, "org", None) == REPO
    assert permitted_repo(at.writer, SOURCE, "", "my-name") == "org/my-name"
    assert permitted_repo(at.writer, SOURCE, USER, None) == f"{USER}/tiny-model-1b-mtp"


@pytest.mark.parametrize(
    ("role", "in_org", "scoped", "reason"),
    [
        ("read", "admin", [], "only read"),
        ("write", None, [], "not a member"),
        ("write", "read", [], "role read"),
        ("fineGrained", "admin", [], "repo.write"),
        ("fineGrained", "admin", [("org", "another", "repo.write")], "repo.write"),
        ("fineGrained", "admin", [("org", "org", "repo.content.read")], "repo.write"),
        ("fineGrained", "admin", [("org", "org", "repo.write")], None),
        ("fineGrained", "admin", [("model", REPO, "repo.write")], None),
        ("write", "contributor", [], None),
        ("write", "", [], None),
    ],
)
def test_rights_are_checked_before_anything_else(
    at: Desk, role: str, in_org: str | None, scoped: list[tuple[str, str, str]], reason: str | None
) -> None:
    """An hour of downloading, and then a 403."""
    at.hub.role = role
    at.hub.orgs = {} if in_org is None else {"org": in_org}
    at.hub.scoped = [{"entity": {"type": kind, "name": name}, "permissions": [may]} for kind, name, may in scoped]
    if reason is None:
        assert permitted_repo(at.writer, SOURCE, "org", None) == REPO
    else:
        with pytest.raises(PermissionDenied, match=reason) as caught:
            permitted_repo(at.writer, SOURCE, "org", None)
        assert caught.value.repo == REPO
    assert [request.path for request in at.hub.requests] == ["/api/whoami-v2"]


@pytest.mark.parametrize(("orgs", "words"), [({}, "no organisation"), ({"a": "admin", "b": "admin"}, "several: a, b")])
def test_the_only_organisation_is_not_guessed(at: Desk, orgs: dict[str, str], words: str) -> None:
    at.hub.orgs = orgs
    with pytest.raises(OptionError, match=words):
        permitted_repo(at.writer, SOURCE, "", None)


def test_an_organisation_has_to_be_asked_for(at: Desk) -> None:
    with pytest.raises(OptionError, match="--org"):
        permitted_repo(at.writer, SOURCE, None, None)
