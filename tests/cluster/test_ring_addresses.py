"""Which link carries the ring: the fastest that neighbours share, or what is pinned; never a public one unasked."""

import json
from pathlib import Path

import pytest

from cli.errors import advice
from skulk_core.cluster.addresses import Pins, choose_addresses, read_pins
from skulk_core.cluster.assignment import Shard
from skulk_core.cluster.backends import jaccl_settings, nccl_settings, ring_settings, settings_for
from skulk_core.cluster.peers import Host, parse_peers
from skulk_core.cluster.planning import Planner, Wishes, capacities, check_hosts
from skulk_core.cluster.report import HostReport, Interface, read_report
from skulk_core.errors import DuplicateHost, HostMismatch, LinkError, OptionError, PublicLink, RdmaMissing, ShareError
from skulk_core.formats.hosts import HostsFile, SshAddress, read_hosts
from skulk_core.memory.caches import CacheShape, WorkingShape
from skulk_core.memory.division import Division, Part
from skulk_core.memory.placement import ModelBytes
from skulk_core.memory.weights import OuterParts, WeightBytes

VERSIONS = {"skulk-mtp": "0.1.0", "mlx": "0.32.4", "mlx-lm": "0.32.2"}


def host(name: str, **more: object) -> Host:
    return Host(name=name, ssh=None if name == "local" else SshAddress(name), **more)  # type: ignore[arg-type]


def report(name: str, *links: tuple[str, str, int | None], **more: object) -> HostReport:
    interfaces = tuple(
        Interface(link, address.split("/")[0], int(address.split("/")[1]), speed) for link, address, speed in links
    )
    loopback = Interface("lo", "127.0.0.1", 8, None)
    facts = {"machine": name, "memory": name, "device": "CPU", "nbytes_per_s": 1e10, "versions": VERSIONS, **more}
    return HostReport(
        hostname=name,
        backend="cpu",
        total_nbytes=16 * 10**9,
        available_nbytes=8 * 10**9,
        auto_dtype="float32",
        interfaces=(*interfaces, loopback),
        **facts,  # type: ignore[arg-type]
    )


def lan(number: int) -> tuple[str, str, int | None]:
    return "eth0", f"192.168.1.{number}/24", 1000


def cable(number: int) -> tuple[str, str, int | None]:
    return "en5", f"10.0.5.{number}/24", 40000


HOSTS = [host("a"), host("b"), host("c")]


def test_neighbours_take_their_fastest_common_link() -> None:
    """Hosts a and b share a 40 Gbit/s cable, c has the LAN alone: only a's call to b may use the cable."""
    reports = [report("a", lan(1), cable(1)), report("b", lan(2), cable(2)), report("c", lan(3))]
    chosen = choose_addresses(HOSTS, reports)
    assert [one.address for one in chosen] == ["192.168.1.1", "10.0.5.2", "192.168.1.3"]
    assert chosen[1].because == "40000 Mbit/s shared with a"


def test_a_link_that_was_cut_is_taken_only_where_there_is_no_other() -> None:
    """The cable of a and b: b is called by the LAN, however slow, and c, which has no other, as before."""
    reports = [report("a", lan(1), cable(1)), report("b", lan(2), cable(2)), report("c", lan(3))]
    chosen = choose_addresses(HOSTS, reports, cut={("a", "10.0.5.2"), ("b", "192.168.1.3")})
    assert [one.address for one in chosen] == ["192.168.1.1", "192.168.1.2", "192.168.1.3"]


def test_a_link_is_as_fast_as_its_slower_end() -> None:
    reports = [
        report("a", ("eth0", "192.168.1.1/24", 10000), ("eth1", "192.168.2.1/24", 2500)),
        report("b", ("eth0", "192.168.1.2/24", 100), ("eth1", "192.168.2.2/24", 2500)),
    ]
    assert [one.address for one in choose_addresses(HOSTS[:2], reports)] == ["192.168.2.1", "192.168.2.2"]


def test_an_address_that_every_machine_has_is_no_link() -> None:
    """Container bridges have the same address and network everywhere, and a high speed."""
    bridge = ("docker0", "172.17.0.1/16", 100000)
    reports = [report("a", bridge, lan(1)), report("b", bridge, lan(2))]
    assert [one.address for one in choose_addresses(HOSTS[:2], reports)] == ["192.168.1.1", "192.168.1.2"]


@pytest.mark.parametrize("pin", ["eth0", "192.168.1.2", "192.168.1.0/24"])
def test_a_pin_wins_over_speed(pin: str) -> None:
    reports = [report("a", lan(1), cable(1)), report("b", lan(2), cable(2))]
    pins = read_pins([f"b={pin}"], HOSTS[:2])
    assert choose_addresses(HOSTS[:2], reports, pins)[1].address == "192.168.1.2"
    by_file = [HOSTS[0], host("b", link=pin)]
    assert choose_addresses(by_file, reports)[1].address == "192.168.1.2"


def test_a_pin_that_fits_nothing_lists_what_there_is() -> None:
    reports = [report("a", lan(1)), report("b", lan(2))]
    with pytest.raises(LinkError, match=r"b: has no link en9; its links: eth0 192.168.1.2/24"):
        choose_addresses(HOSTS[:2], reports, Pins(by_host=(("b", "en9"),)))


@pytest.mark.parametrize(
    ("values", "words"), [(["x=eth0"], "no host"), (["eth0", "en5"], "already"), (["a="], "names")]
)
def test_pins_that_cannot_be_meant(values: list[str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_pins(values, HOSTS)


def test_a_public_address_needs_a_word() -> None:
    """The ring has no login: on the Internet anybody could be its neighbour."""
    public = [report(name, ("eth0", f"8.8.8.{number}/24", 10000)) for number, name in enumerate("ab", 1)]
    with pytest.raises(PublicLink, match="8.8.8"):
        choose_addresses(HOSTS[:2], public)
    chosen = choose_addresses(HOSTS[:2], public, allow_public=True)
    assert [one.address for one in chosen] == ["8.8.8.1", "8.8.8.2"]
    with_lan = [report(n, ("eth0", f"8.8.8.{i}/24", 10000), lan(i)) for i, n in enumerate("ab", 1)]
    assert [one.address for one in choose_addresses(HOSTS[:2], with_lan)] == ["192.168.1.1", "192.168.1.2"]


def test_hosts_behind_a_router_take_the_addresses_that_ssh_met() -> None:
    met = {"reached_at": "192.168.9.2", "reached_from": "192.168.1.1"}
    reports = [report("a", ("eth0", "192.168.9.2/24", None), **met), report("local", lan(1))]
    chosen = choose_addresses([host("a"), host("local")], reports)
    assert [one.address for one in chosen] == ["192.168.9.2", "192.168.1.1"]
    with pytest.raises(LinkError, match="shares no network"):
        choose_addresses(HOSTS[:2], [report("a", lan(1)), report("b", ("eth0", "192.168.9.2/24", None))])


def test_processes_of_one_machine_stay_on_it() -> None:
    one = report("local", lan(1))
    chosen = choose_addresses([Host(name="local#1"), Host(name="local#2")], [one, one])
    assert [address.address for address in chosen] == ["127.0.0.1", "127.0.0.1"]


def test_one_machine_under_two_names_is_refused() -> None:
    with pytest.raises(DuplicateHost, match="b: is the same machine as a"):
        check_hosts(HOSTS[:2], [report("a", lan(1)), report("b", lan(1), machine="a")])
    with pytest.raises(DuplicateHost):
        check_hosts([host("a"), host("local")], [report("x", lan(1)), report("x", lan(1))])


def test_other_versions_are_refused_with_both() -> None:
    old = report("a", lan(1), versions={**VERSIONS, "mlx": "0.31.0"})
    with pytest.raises(HostMismatch, match=r"a: the version of mlx is 0.31.0, on b it is 0.32.4"):
        check_hosts(HOSTS[:2], [old, report("b", lan(2))])


def test_capacity_follows_limits_and_shared_memory() -> None:
    limited = host("a", memory_nbytes=5 * 10**9)
    both = report("local", lan(2))
    found = capacities([limited, Host(name="local#1"), Host(name="local#2")], [report("a", lan(1)), both, both])
    assert [one.available_nbytes for one in found] == [5 * 10**9, 4 * 10**9, 4 * 10**9]


def test_equal_hosts_count_as_equally_fast_whatever_was_measured() -> None:
    """A plan must not change from run to run because a measurement was noisy."""
    reports = [report("a", nbytes_per_s=1.0e10), report("b", nbytes_per_s=1.5e10), report("c", device="M4")]
    speeds = [one.speed for one in capacities(HOSTS, [*reports[:2], report("c", device="M4", nbytes_per_s=5e10)])]
    assert speeds[0] == speeds[1] == 1.0
    assert speeds[2] == 4.0


def test_a_report_survives_the_pipe() -> None:
    whole = report("a", lan(1), cable(1))
    assert read_report(json.loads(json.dumps(whole.as_frame()))) == whole


def test_what_each_data_plane_is_told() -> None:
    """As `mlx.launch` tells it; RDMA and NCCL were not run by those who wrote this."""
    ring = ring_settings(["10.0.0.1:5000", "10.0.0.2:5001"])
    assert ring[1].environment == {"MLX_RANK": "1"}
    assert json.loads(ring[1].files["MLX_HOSTFILE"]) == [["10.0.0.1:5000"], ["10.0.0.2:5001"]]
    names = "abc"
    meshed = [host(n, rdma={o: f"rdma_{n}{o}" for o in names if o != n}) for n in names]
    jaccl = jaccl_settings(meshed, "10.0.0.1:5000")
    assert jaccl[2].environment == {"MLX_RANK": "2", "MLX_JACCL_COORDINATOR": "10.0.0.1:5000", "MLX_JACCL_RING": "1"}
    devices = json.loads(jaccl[2].files["MLX_IBV_DEVICES"])
    assert devices == [[None, "rdma_ab", "rdma_ac"], ["rdma_ba", None, "rdma_bc"], ["rdma_ca", "rdma_cb", None]]
    with pytest.raises(RdmaMissing, match="c: hosts.yaml names no `rdma` device towards a"):
        jaccl_settings([*meshed[:2], host("c", rdma={"b": "x"})], "10.0.0.1:5000")
    with pytest.raises(OptionError, match="several processes"):
        jaccl_settings(parse_peers("local:2", HostsFile(Path("hosts.yaml"), ())), "10.0.0.1:5000")
    assert nccl_settings(2, "10.0.0.1:5000")[1].environment == {
        "MLX_RANK": "1",
        "NCCL_HOST_IP": "10.0.0.1",
        "NCCL_PORT": "5000",
        "MLX_WORLD_SIZE": "2",
    }


def test_rdma_between_another_host_and_this_one(tmp_path: Path) -> None:
    """The commonest ring of all, `--peers mini`: doing what the refusals say, one after the other, leads to it."""
    file = tmp_path / "hosts.yaml"
    text = "schema: 1\nhosts:\n  mini:\n    ssh: ana@mini.local\n"
    for line, lacking in (
        ("    rdma: {local: rdma_en5}\n", RdmaMissing("mini", "local")),
        ("  local:\n    rdma: {mini: rdma_en4}\n", RdmaMissing("local", "mini")),
    ):
        file.write_text(text)
        with pytest.raises(RdmaMissing) as error:
            settings_for("jaccl", parse_peers("mini", read_hosts(file)), ["10.0.0.1:5000"] * 2)
        assert (error.value.host, error.value.neighbour) == (lacking.host, lacking.neighbour)
        assert f"give {lacking.host} `rdma: {{{lacking.neighbour}: DEVICE}}`" in advice(error.value)[0]
        text += line
    file.write_text(text)
    mini, own = settings_for("jaccl", parse_peers("", read_hosts(file)), ["10.0.0.1:5000"] * 2)
    assert json.loads(mini.files["MLX_IBV_DEVICES"]) == [[None, "rdma_en5"], ["rdma_en4", None]]
    assert own.environment == {"MLX_RANK": "1", "MLX_JACCL_COORDINATOR": "10.0.0.1:5000"}


def test_the_first_of_the_ranks_that_share_layers_is_this_host() -> None:
    """It decides, and `--sidecar FOLDER` is a folder here. Two hosts that are left and cannot share cut by layers."""
    model = ModelBytes(
        weights=WeightBytes((10**6,) * 6, {"embed_tokens": 10**6}),
        outer=OuterParts(*[frozenset({"embed_tokens"})] * 4),
        caches=(CacheShape(),) * 6,
        working=WorkingShape(row=0, vocab=0, heads=0, prefill_rows=0),
        context=256,
        item_nbytes=2,
        split_points=(1, 2, 3, 4, 5),
        division=Division("llama", (Part("attention heads", 9),)),
    )
    hosts = [host("a"), host("b"), host("local")]
    reports = [report(one.name, lan(number)) for number, one in enumerate(hosts, 1)]
    planner = Planner(model, hosts, reports, Wishes(Shard.TENSOR))
    plan = planner.plan(hosts)
    assert (plan.shard, [one.name for one in plan.hosts]) == (Shard.TENSOR, ["local", "a", "b"])
    assert [one.host for one in plan.stages] == ["local", "a", "b"]
    assert [one.address for one in plan.addresses] == ["192.168.1.3", "192.168.1.1", "192.168.1.2"]
    left = planner.plan([hosts[0], hosts[2]])
    assert (left.shard, [one.name for one in left.hosts]) == (Shard.PIPELINE, ["a", "local"])
    with pytest.raises(ShareError, match="no 2 equal shares"):
        Planner(model, hosts[1:], reports[1:], Wishes(Shard.TENSOR)).plan(hosts[1:])
