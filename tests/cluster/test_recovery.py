"""Who is tried again, who is left out and when a run ends, whatever the order in which hosts fail."""

from collections.abc import Sequence

import pytest

from skulk_core.cluster.assignment import Assignment, Drafting
from skulk_core.cluster.epoch import Member
from skulk_core.cluster.pace import Pace
from skulk_core.cluster.peers import Host
from skulk_core.cluster.reaching import most_cut_off
from skulk_core.cluster.recovery import Recovery
from skulk_core.errors import (
    ClusterLost,
    Cut,
    LinkCut,
    LoginRefused,
    PeerUnreachable,
    PlanDoesNotFit,
    RingError,
    SkulkError,
    WorkerFailed,
)

NAMES = ("a", "b", "c", "local")


class Run:
    """A run whose hosts fail as told; time passes only where a test says so."""

    def __init__(self, names: Sequence[str] = NAMES, least: int = 1) -> None:
        self.now_s, self._least, self.avoided = 0.0, least, list[tuple[str, str]]()
        self.recovery = Recovery(
            [Host(name=name) for name in names],
            self._place,
            lambda caller, address: self.avoided.append((caller, address)),
            clock=lambda: self.now_s,
        )
        self.begin()

    def _place(self, epoch: int, hosts: Sequence[Host]) -> list[Member]:
        if len(hosts) < self._least:
            raise PlanDoesNotFit([(hosts[0].name, 2, 1, 1)])
        drafting = Drafting("head", needed=True)
        return [
            Member(host, Assignment(epoch, rank, len(hosts), 0, 1, "m", "float32", drafting=drafting))
            for rank, host in enumerate(hosts)
        ]

    def begin(self) -> str:
        """The next epoch's hosts."""
        self.members = self.recovery.next_members()
        return " ".join(member.host.name for member in self.members)

    def after(self, *errors: SkulkError) -> str:
        """The hosts of the epoch after these failures, nothing decoded between."""
        for error in errors:
            self.recovery.failed(error)
            self.begin()
        return " ".join(host.name for host in self.recovery.hosts)


def died(host: str, how: str = "its worker ended (signal 9)") -> WorkerFailed:
    return WorkerFailed(host, how)


def gone(host: str) -> PeerUnreachable:
    return PeerUnreachable(host, "no route to host")


def test_all_peers_gone_leave_this_host_alone() -> None:
    """In one blow: each is found out by one epoch that cannot begin, and none of them counts for another."""
    assert Run().after(gone("c"), gone("b"), gone("a")) == "local"


@pytest.mark.parametrize(
    ("order", "left"),
    [("a", "a b c local"), ("aa", "b c local"), ("abc", "a b c local"), ("aba", "b c local"), ("abcabc", "local")],
)
def test_failures_in_a_row_are_those_of_one_host(order: str, left: str) -> None:
    """Three hosts that are killed together are three hosts tried again, and no crash loop."""
    assert Run().after(*map(died, order)) == left


def test_what_was_decoded_between_forgives_an_accident() -> None:
    run = Run()
    for how in ("signal 9", "signal 11", "silent", "stopped"):
        assert run.after(died("a", how)) == "a b c local"
        run.recovery.progressed()


def test_a_host_that_fails_alike_again_and_again_is_left_out_though_something_was_decoded_between() -> None:
    """Else it costs a recovery every few rounds for ever; seconds in the message make no difference."""
    run = Run()
    for number in range(4):
        assert run.after(died("a", f"nothing was heard of it for {number + 8} s")) == "a b c local"
        run.recovery.progressed()
        run.now_s += 60
    assert run.after(died("a", "nothing was heard of it for 30 s")) == "b c local"


def test_the_same_once_an_hour_is_forgiven() -> None:
    run = Run()
    for _ in range(20):
        assert run.after(died("a")) == "a b c local"
        run.recovery.progressed()
        run.now_s += 3600


def test_a_ring_that_breaks_without_progress_ends_the_run_with_the_evidence() -> None:
    run = Run()
    assert run.after(RingError("lost"), died("a"), RingError("lost")) == "a b c local"
    with pytest.raises(ClusterLost, match="3 failures in a row.*epoch 1: lost; epoch 2: a: .*; epoch 4: lost"):
        run.after(RingError("lost"))


def test_a_ring_that_breaks_alike_for_ever_ends_the_run() -> None:
    run = Run()
    for _ in range(9):
        run.after(RingError("no progress for 5.1 s"))
        run.recovery.progressed()
        run.now_s += 60
    with pytest.raises(ClusterLost, match="10 times"):
        run.after(RingError("no progress for 5.3 s"))


def test_a_host_is_taken_back_once_where_the_others_cannot_hold_the_model() -> None:
    """Left out on one word of ssh, which may have been about a cable that is plugged in again by now."""
    run = Run(("a", "local"), least=2)
    assert run.after(gone("a")) == "a local"
    with pytest.raises(ClusterLost, match="cannot take over"):
        run.after(gone("a"))


def test_a_cut_link_is_avoided_and_its_host_left_out_where_that_does_not_help() -> None:
    run = Run()
    cut = LinkCut("a", [Cut("local", "a", "10.0.0.1", "no route"), Cut("a", "b", "10.0.0.2", "no route")])
    assert run.after(RingError("lost"), cut) == "a b c local"
    assert run.avoided == [("local", "10.0.0.1"), ("a", "10.0.0.2")]
    assert run.after(cut) == "b c local"


def test_whom_the_others_can_do_without() -> None:
    """The host that is at most of the cuts, and never this machine."""

    def between(*pairs: str) -> list[Cut]:
        names = {"l": "local", "m": "local#2"}
        ends = [[names.get(one, one) for one in pair] for pair in pairs]
        return [Cut(caller, host, "10.0.0.1", "no route") for caller, host in ends]

    ranks, here = ("a", "b", "local", "local#2"), ("local", "local#2")
    assert most_cut_off(between("ab", "bl"), ranks, here) == "b"
    assert most_cut_off(between("ma", "lb", "bl"), ranks, here) == "b"
    assert most_cut_off(between("bl"), ranks, here) == "b"
    # of two alike the one that decides is kept
    assert most_cut_off(between("ab", "ba"), ("a", "b"), ()) == "a"


def test_a_refused_login_is_tried_again_after_a_moment() -> None:
    """An sshd that is being started, or that has too many logins, takes the next one; others are not waited for."""
    run = Run()
    refused = PeerUnreachable("a", "connection refused", answered=True)
    assert run.recovery.failed(refused) > 0
    assert run.recovery.failed(LoginRefused("b", "permission denied")) > 0
    assert [host.name for host in run.recovery.hosts] == list(NAMES)
    assert run.recovery.failed(gone("c")) == 0
    assert run.recovery.failed(died("local")) == 0


def test_no_host_is_left() -> None:
    run = Run(("a",))
    with pytest.raises(ClusterLost, match="no host is left.*no route"):
        run.after(gone("a"))


def test_a_later_decider_may_do_without_a_head() -> None:
    """The first must have what was asked for; where it is lost, a text without drafts is better than none."""
    run = Run()
    run.after(died("a"))
    assert all(member.assignment.drafting.needed for member in run.members)
    run.recovery.formed()
    run.after(died("b"))
    drafting = run.members[-1].assignment.drafting
    assert (drafting.how, drafting.needed, drafting.allow_plain) == ("head", False, True)


def test_a_new_ring_is_waited_for_by_what_the_old_one_took() -> None:
    """Not for ten minutes, after rounds of milliseconds; nor shorter than kernels take to be compiled."""
    pace = Pace()
    unknown_s = pace.deadline_s
    assert pace.anew().deadline_s == unknown_s
    for _ in range(8):
        pace.took(0.01)
    quick = pace.anew()
    assert pace.deadline_s < 60 <= quick.deadline_s < unknown_s
    # lost again before it was measured
    assert quick.anew().deadline_s == quick.deadline_s
    for _ in range(64):
        pace.took(30.0)
    assert pace.anew().deadline_s == unknown_s
