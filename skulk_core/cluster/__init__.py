"""Several hosts: workers, the ring between them, one lap a round, supervision and resume.

A *rank* is one worker process, ``skulk worker``, on some host. The launcher is no rank: it starts one worker for each,
also for its own host, speaks to it over the process's stdin and stdout, and owns its life.

What the launcher needs of a started process (`channel.py` speaks over it, `transport.py` makes it, by a local
subprocess or by ssh):

    class WorkerProcess(Protocol):
        host: str                 # how messages name the host, e.g. "local", "ana@10.0.0.2:2222"
        stdin: BinaryIO           # unbuffered; closing it ends the worker at once, wherever it runs
        stdout: BinaryIO          # unbuffered; banners of a login may come before the worker's start marker
        def poll(self) -> int | None: ...                    # exit code of the local process (ssh: ssh's), None: runs
        def wait(self, timeout_s: float) -> int | None: ...  # None if it still runs then
        def kill(self, pid: int | None = None) -> None: ...  # at once, idempotent, never raises; `pid` is what the
                                                             # worker said its own is, so that a stopped process on
                                                             # another host can be ended too
        def stderr_tail(self) -> str: ...                    # the last lines of its stderr, read all along by a thread

    def start(host: Host, arguments: Sequence[str], environment: Mapping[str, str]) -> WorkerProcess
        # runs `skulk worker ARGUMENTS…` there (the command that starts skulk may be the host's own); raises a typed
        # error that names the host if it cannot even be started

A local process is started in a session of its own, so that Ctrl-C reaches the launcher alone; the worker ends itself
when its stdin ends, whatever killed the launcher.

The worker writes `START_MARKER` to stdout, then frames only. A frame is a length, four bytes big-endian, and so many
bytes of a JSON object in UTF-8. The launcher writes frames only. Both sides send a frame within each lease, or are
taken for lost.
"""
