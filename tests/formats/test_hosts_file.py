"""hosts.yaml: what it may say, and that a mistake is found by line and key before any host is asked."""

from pathlib import Path

import pytest

from skulk_core.errors import FormatError
from skulk_core.formats.hosts import SshAddress, parse_address, read_hosts

GOOD = """\
schema: 1
hosts:
  studio:
    ssh: ana@192.168.1.20:2222
    command: ~/.local/bin/skulk --quiet 'a b'
    link: 10.0.0.2
    memory_gb: 48
    speed: 2
    rdma: {mini: rdma_en5, local: rdma_en6}
  mini:
    ssh: mini.local
  local:
    rdma: {studio: rdma_en4}
"""


def read(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    file = tmp_path / "hosts.yaml"
    file.write_text(text, encoding="utf-8")
    return read_hosts(file)


def test_everything_that_a_host_may_say(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    studio, mini = found.hosts
    assert studio.ssh == SshAddress("192.168.1.20", "ana", 2222)
    assert studio.command == ("~/.local/bin/skulk", "--quiet", "a b")
    assert (studio.link, studio.memory_nbytes, studio.speed) == ("10.0.0.2", 48_000_000_000, 2.0)
    assert studio.rdma == {"mini": "rdma_en5", "local": "rdma_en6"}
    # this machine is no host that ssh reaches
    assert found.local_rdma == {"studio": "rdma_en4"}
    assert mini.ssh == SshAddress("mini.local")
    assert mini.command == ("skulk",)


def test_no_file_is_no_hosts(tmp_path: Path) -> None:
    found = read_hosts(tmp_path / "hosts.yaml")
    assert found.hosts == ()
    assert not found.exists


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("schema: 1", "schema: 2", 1, "schema"),
        ("    link: 10.0.0.2", "    lnik: 10.0.0.2", 6, "did you mean 'link'"),
        ("ana@192.168.1.20:2222", "ana@192.168.1.20:70000", 4, "hosts.studio.ssh"),
        ("ana@192.168.1.20:2222", "-oProxyCommand=x", 4, "hosts.studio.ssh"),
        ("memory_gb: 48", "memory_gb: -1", 7, "above 0"),
        ("speed: 2", "speed: fast", 8, "must be a number"),
        ("{mini: rdma_en5,", "{maxi: rdma_en5,", 9, "no other host"),
        ("    rdma: {studio: rdma_en4}", "    ssh: me@here", 13, "means this machine"),
        ("{studio: rdma_en4}", "{local: rdma_en4}", 13, "no other host"),
        ("ssh: mini.local", "ssh: bob@192.168.1.20:2222", 11, "address of studio already"),
        ("command: ~/.local/bin/skulk --quiet 'a b'", 'command: "skulk \'a"', 5, "hosts.studio.command"),
    ],
)
def test_a_mistake_is_named_by_line_and_key(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    """Nobody finds a misspelt key among ten hosts by trying them all."""
    assert old in GOOD
    with pytest.raises(FormatError) as error:
        read(tmp_path, GOOD.replace(old, new))
    assert words in str(error.value)
    assert f"line {line}" in error.value.where


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("h", "h", None, None),
        ("a.b-c@10.0.0.1", "10.0.0.1", "a.b-c", None),
        ("ana@[fe80::1%eth0]:22", "fe80::1%eth0", "ana", 22),
        ("studio.local:2200", "studio.local", None, 2200),
    ],
)
def test_addresses_read_as_ssh_writes_them(text: str, host: str, user: str | None, port: int | None) -> None:
    assert parse_address(text) == SshAddress(host, user, port)
    assert parse_address(str(parse_address(text))) == SshAddress(host, user, port)


@pytest.mark.parametrize("text", ["", "@h", "a@", "a@-h", "-a@h", "a@h:", "a@h:0", "a b@h", "a@h;rm", "a@$(h)", "a@h`"])
def test_what_ssh_or_a_shell_would_take_for_something_else_is_no_address(text: str) -> None:
    assert parse_address(text) is None
