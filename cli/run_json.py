"""The object that `skulk run --json` prints: one line of JSON on stdout, after the answer has ended. Schema 1.

Fields may be added within a schema; none is renamed, removed or given another meaning without a new number. A type
with `| null` is null where it says so. Seconds are seconds of a clock, counts are whole numbers.

    field                       type              what it is
    schema                      int               1
    model                       str               MODEL as it was given; of the Hub `OWNER/NAME@COMMIT`
    sidecar                     str | null        where the draft head is from; `prompt lookup` for --draft ngram; null
                                                  without a head
    text                        str               the answer, without a stop string and what follows it
    tokens                      list[int]         its token ids, without the stop token, but with the token that
                                                  completed a stop string: then `text` is shorter than what they decode
                                                  to. After Ctrl-C the last may not be in `text` whole
    finish_reason               str               `stop` (a stop token or string), `length`, `interrupted`
    error                       str | null        why the text could not go on: its hosts were lost. Then `text` is
                                                  what came until then, and `finish_reason` is `interrupted`
    full                        str | null        which host had no memory for more of the text; null unless that
                                                  ended it, and `finish_reason` is `length`
    plain_because               str | null        why nothing was drafted; null where something was
    sampling                    object            what tokens were drawn with, defaults included
    sampling.temperature        float             0: the most likely token; then `seed` and the filters mean nothing
    sampling.top_p              float             1: off
    sampling.top_k              int               0: off
    sampling.min_p              float             0: off
    sampling.repetition_penalty float             1: off
    sampling.presence_penalty   float             0: off
    sampling.frequency_penalty  float             0: off
    sampling.logit_bias         list              pairs [token id, float]; "-inf", a string, in place of a float bans it
    sampling.seed               int               given or chosen; up to 2^64 - 1, more than a float holds exactly
    sampling.accept             str               `block` or `token`
    certificate                 object | null     what --certify found; null without it
    certificate.holds           bool              every difference is one that rounding explains
    certificate.compared        int               tokens compared with plain decoding, a stop token at the end included
    certificate.divergences     list              objects {position, emitted, plain, gap}: the place in `tokens` (behind
                                                  them the stop token), the token there, plain decoding's, and by how
                                                  much its logit leads
    certificate.smallest_gap    float | null      between the two best logits of any position; null if there is none
    certificate.bound           float             the gap up to which rounding may decide
    stats                       object            counted while decoding
    stats.prompt_tokens         int               tokens of the prompt, the chat template's included
    stats.prefill_s             float             reading the prompt and deciding the first token
    stats.decode_s              float             the rounds, which decide all others
    stats.decode_tokens_per_s   float             tokens after the first, over `decode_s`; 0 if there was only one
    stats.rounds                int               passes that decided tokens; the first token belongs to none
    stats.drafted               int               tokens drafted in all rounds
    stats.accepted              int               those of them that stand in the answer
    stats.acceptance            list[float]       by position of a draft: the share accepted of those reached, that is
                                                  all before them in their round were accepted. Shorter than the depth
                                                  if no round reached the last positions, and empty without drafts
    stats.tokens_per_round      float             mean over rounds; 0 if there was none
    stats.draft_depth           int | str         tokens drafted a round; `auto` if it was chosen for each
    stats.synchronisations      int               waits for the device
    stats.extra_passes          int               passes beyond one a round
    ring                        object | null     several hosts; null on one
    ring.epoch                  int               which ring the text ended in; one formed later has a greater number
    ring.ranks                  list              objects {host, layers: [start, end)} in the order of the ranks
    ring.messages_per_round     float | null      between all ranks; null if they were not counted, as after Ctrl-C
    ring.bytes_per_round        float | null      the same, in bytes
    ring.recoveries             int               rings formed anew after a host was lost
    ring.recovery_s             float             what that took
"""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cli.loading import Loaded
from skulk_core.errors import SkulkError

if TYPE_CHECKING:
    from skulk_core.decode.certificate import Certificate
    from skulk_core.decode.session import Outcome
    from skulk_core.sampling.settings import SamplingSettings

JSON_SCHEMA = 1


def as_json(
    loaded: Loaded,
    outcome: "Outcome",
    chosen: "SamplingSettings",
    certificate: "Certificate | None",
    lost: SkulkError | None = None,
) -> dict[str, object]:
    """The object described above; ``lost`` is what ended the text, or its certificate, too soon."""
    stats = outcome.stats
    return {
        "schema": JSON_SCHEMA,
        "model": str(loaded.source),
        "sidecar": loaded.head_name,
        "text": outcome.text,
        "tokens": outcome.tokens,
        "finish_reason": outcome.finish_reason,
        "error": None if lost is None else str(lost),
        "full": None if stats.full is None else str(stats.full),
        "plain_because": loaded.plain_because,
        "sampling": _sampling_json(chosen),
        "certificate": certificate and {"holds": certificate.holds, **asdict(certificate)},
        "stats": {
            "prompt_tokens": stats.prompt_tokens,
            "prefill_s": stats.prefill_s,
            "decode_s": stats.decode_s,
            "decode_tokens_per_s": stats.decode_tokens_per_s,
            "rounds": stats.rounds,
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "acceptance": stats.acceptance,
            "tokens_per_round": stats.tokens_per_round,
            "draft_depth": "auto" if stats.chose_depth else stats.draft_depth,
            "synchronisations": stats.synchronisations,
            "extra_passes": stats.extra_passes,
        },
        "ring": _ring_json(loaded, outcome),
    }


def _sampling_json(chosen: "SamplingSettings") -> dict[str, Any]:
    """JSON has no infinity, with which a token is banned."""
    biases = [[token, "-inf" if math.isinf(bias) else bias] for token, bias in chosen.logit_bias]
    return {**asdict(chosen), "logit_bias": biases}


def _ring_json(loaded: Loaded, outcome: "Outcome") -> dict[str, object] | None:
    """The ranks and what went between them; None on one host."""
    if loaded.engine is None:
        return None
    stats = outcome.stats
    # a text that was stopped from here was decoded on for a while by then, and nobody knows how far
    rounds = stats.counted_rounds
    return {
        "epoch": loaded.engine.number,
        "ranks": [
            {"host": member.host.name, "layers": [member.assignment.start, member.assignment.end]}
            for member in loaded.engine.members
        ],
        "messages_per_round": stats.messages / rounds if rounds else None,
        "bytes_per_round": stats.message_nbytes / rounds if rounds else None,
        "recoveries": stats.recoveries,
        "recovery_s": stats.recovery_s,
    }
