"""A person at a terminal: `skulk` on a pseudo-terminal of its own, whose Ctrl-C and Ctrl-D are real ones."""

import fcntl
import os
import pty
import select
import subprocess
import termios

from cli_runner import TIMEOUT_S, Argument, Finished, Program, command

CTRL_C, CTRL_D = b"\x03", b"\x04"
PROMPT = "> "
_BETWEEN_PRESSES_S = 0.3


class ChatTerminal:
    """A process whose stdin and stdout are a terminal of its own; stderr is a pipe, read at the end."""

    def __init__(self, program: Program, *arguments: Argument, **settings: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command(arguments),
            env=program.environment(settings),
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # or Ctrl-C would be nobody's
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = ""
        self._typed_at = 0

    def wait_for_prompt(self) -> str:
        """Wait until it asks for what to say; what was shown since something was typed, the echo included."""
        while not self.shown[self._typed_at :].endswith(PROMPT):
            assert self._read(), f"ended without a prompt: {self.shown}"
        return self.shown[self._typed_at :].replace("\r\n", "\n")

    def wait_for_more(self, num_characters: int) -> None:
        """Wait until so many characters were shown since something was typed."""
        while len(self.shown) < self._typed_at + num_characters:
            assert self._read(), f"ended early: {self.shown}"

    def type(self, text: str) -> None:
        """Type a line."""
        self.press(text.encode() + b"\r")

    def press(self, keys: bytes) -> None:
        """Press keys."""
        self._typed_at = len(self.shown)
        os.write(self._master, keys)

    def press_until_it_ends(self, keys: bytes) -> Finished:
        """Press keys again and again, as somebody who wants to leave."""
        while self.process.poll() is None:
            self.press(keys)
            while select.select([self._master], [], [], _BETWEEN_PRESSES_S)[0] and self._read():
                pass
        return self.finish()

    def finish(self) -> Finished:
        """Read everything to the end."""
        while self._read():
            pass
        os.close(self._master)
        assert self.process.stderr is not None
        stderr = self.process.stderr.read().decode()
        assert "Traceback" not in stderr, stderr
        return Finished(self.process.wait(TIMEOUT_S), self.shown, stderr)

    def _read(self) -> bool:
        try:
            got = os.read(self._master, 4096)
        except OSError:  # what Linux says when the other side of a terminal was closed
            got = b""
        self.shown += got.decode(errors="replace")
        return bool(got)
