"""What a run did, counted while it runs."""

from dataclasses import dataclass, field

from skulk_core.errors import MemoryFull


@dataclass(frozen=True)
class Round:
    """One round's outcome: the tokens it emitted, the drafts it judged and how many of them were accepted."""

    tokens: tuple[int, ...]
    num_drafted: int
    num_accepted: int


@dataclass
class Stats:
    """Counters of one text. Owned and changed by the decoder alone.

    ``draft_depth`` is the greatest where the depth was chosen round by round (``chose_depth``).
    ``reused_tokens`` of the prompt were held from the text before and not fed again.
    ``judged_at[i]`` counts the rounds in which draft i was reached, that is all drafts before it were accepted;
    ``accepted_at[i]`` those in which it was accepted too. ``synchronisations`` counts the waits for the device,
    ``extra_passes`` the passes beyond one a round. In ``counted_rounds`` of the rounds ``messages`` of
    ``message_nbytes`` together went between the ranks of a ring: those of the ring that the text ended in, if
    it ended by itself. ``recoveries`` counts the rings that had to be formed anew, which took ``recovery_s``.
    ``full`` says why the text ended where a host had no memory for more of it. ``read_in_pieces`` tells that the text
    was fed in other passes than plain decoding's from its beginning would be.
    """

    draft_depth: int = 0
    chose_depth: bool = False
    prompt_tokens: int = 0
    reused_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    tokens: int = 0
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    synchronisations: int = 0
    extra_passes: int = 0
    counted_rounds: int = 0
    messages: int = 0
    message_nbytes: int = 0
    recoveries: int = 0
    recovery_s: float = 0.0
    full: MemoryFull | None = None
    read_in_pieces: bool = False
    judged_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)

    def count(self, round_: Round) -> None:
        """Add a round."""
        self.rounds += 1
        self.tokens += len(round_.tokens)
        self.drafted += round_.num_drafted
        self.accepted += round_.num_accepted
        while len(self.judged_at) < round_.num_drafted:
            self.judged_at.append(0)
            self.accepted_at.append(0)
        for position in range(min(round_.num_drafted, round_.num_accepted + 1)):
            self.judged_at[position] += 1
            self.accepted_at[position] += position < round_.num_accepted

    @property
    def acceptance(self) -> list[float]:
        """Per draft position: the share accepted of those reached; positions never reached are left out."""
        return [a / j for a, j in zip(self.accepted_at, self.judged_at, strict=True) if j]

    @property
    def tokens_per_round(self) -> float:
        """Mean tokens a round emitted; the first token of a text comes from the prompt's pass and belongs to none."""
        return self.tokens / self.rounds if self.rounds else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens after the first, over the time they took."""
        return self.tokens / self.decode_s if self.decode_s else 0.0
