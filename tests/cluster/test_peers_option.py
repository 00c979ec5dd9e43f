"""`--peers`: who takes part, in which order, and what is refused before anybody is asked."""

from pathlib import Path

import pytest

from skulk_core.cluster.peers import parse_peers
from skulk_core.errors import DuplicateHost, OptionError
from skulk_core.formats.hosts import HostEntry, HostsFile, SshAddress

KNOWN = HostsFile(
    Path("hosts.yaml"),
    (
        HostEntry(name="studio", ssh=SshAddress("10.0.0.2", "ana"), command=("~/bin/skulk",), link="en5", speed=2.0),
        HostEntry(name="mini", ssh=SshAddress("10.0.0.3", "ana", 2222)),
    ),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("studio,mini", ["studio", "mini", "local"]),
        ("", ["studio", "mini", "local"]),
        ("local,studio", ["local", "studio"]),
        ("local:2", ["local#1", "local#2"]),
        ("studio,local:0", ["studio"]),
        ("studio,local:2", ["studio", "local#1", "local#2"]),
        ("bob@10.0.0.9:22, studio", ["bob@10.0.0.9:22", "studio", "local"]),
    ],
)
def test_ranks_are_the_hosts_in_order_and_this_one(text: str, names: list[str]) -> None:
    assert [host.name for host in parse_peers(text, KNOWN)] == names


def test_a_name_brings_what_the_file_says_of_it() -> None:
    studio = parse_peers("studio", KNOWN)[0]
    assert (studio.ssh, studio.command, studio.link, studio.speed) == (
        SshAddress("10.0.0.2", "ana"),
        ("~/bin/skulk",),
        "en5",
        2.0,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stduio", "did you mean 'studio'"),
        ("studio,,mini", "not user@host"),
        ("local:0", "no host to decode on"),
        ("local:-1", "number of processes"),
        ("local:two", "number of processes"),
        ("local:2,local", "names local twice"),
        ("10.0.0.7", "user@host"),
        ("ana@-oProxyCommand=x", "not user@host"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(OptionError) as error:
        parse_peers(text, KNOWN)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["studio,studio", "studio,bob@10.0.0.2", "a@h,a@H:22"])
def test_a_host_twice_is_refused(text: str) -> None:
    """Two ranks on one machine would share its memory without a plan knowing."""
    with pytest.raises(DuplicateHost):
        parse_peers(text, KNOWN)


def test_all_hosts_of_no_file_is_refused_naming_the_file() -> None:
    with pytest.raises(OptionError, match="nowhere/hosts.yaml, which does not exist"):
        parse_peers("", HostsFile(Path("nowhere/hosts.yaml"), (), exists=False))
