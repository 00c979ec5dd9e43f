"""One answer as it comes: streamed, interruptible, and compared with plain decoding where that is asked for."""

from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from cli.errors import FULL_TIP
from cli.program import Interrupts
from cli.render import Reporter, certificate_line, out_answer, say
from skulk_core.errors import ClusterLost

if TYPE_CHECKING:
    from skulk_core.decode.certificate import Certificate
    from skulk_core.decode.session import Outcome, Request, Session


def decode_answer(
    session: "Session",
    request: "Request",
    outcome: "Outcome",
    reporter: Reporter,
    interrupts: Interrupts,
    *,
    print_text: bool,
) -> None:
    """Decode to the end, with progress until the text begins, or all along where it is not printed.

    ``outcome`` is whole also after an exception: `KeyboardInterrupt` on Ctrl-C, or what the session raises.
    """

    def on_prompt(done: int, total: int) -> None:
        reporter.tokens(done, total)
        interrupts.check()

    with closing(session.decode(request, outcome, on_prompt)) as pieces:
        if not print_text:
            with reporter.working():
                for _ in pieces:
                    reporter.step("answering")
                    interrupts.check()
            return
        with reporter.working():
            first = next(pieces)
        num_printed = 0
        try:
            for piece in chain([first], pieces):
                out_answer(piece)
                num_printed += len(piece)
                interrupts.check()
        except (KeyboardInterrupt, RuntimeError, ClusterLost):
            # what was held back because it could have become a stop string or a character
            pieces.close()
            out_answer(outcome.text[num_printed:])
            raise


def say_if_full(outcome: "Outcome") -> None:
    """Tell whose memory ended an answer."""
    if outcome.stats.full is not None:
        say(f"{outcome.stats.full}: the answer ends here. {FULL_TIP}")


def certified(
    session: "Session", request: "Request", outcome: "Outcome", reporter: Reporter, interrupts: Interrupts
) -> "Certificate":
    """Compare the answer with plain decoding, and say what came of it."""

    def on_replay(done: int, total: int) -> None:
        reporter.replayed(done, total)
        interrupts.check()

    with reporter.working():
        certificate = session.certify(request, outcome, on_replay)
    reporter.note(certificate_line(certificate))
    return certificate
