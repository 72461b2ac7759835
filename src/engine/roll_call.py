"""Who is missing: what the processes of a team tell each other, apart from the connections that fail with one of them.

When a process dies, the others learn from the system only that a connection was closed. They then call the roll in
the store at which the team met: who does not answer is lost, and who left with an error said so.
"""

from __future__ import annotations

import os
import socket
import time

import torch.distributed as dist

#: Seconds to wait for answers: the others notice when their own connections close. torchrun kills after thirty.
PATIENCE = 15.0
_SIGNS = ("gloo/transport", "connection closed by peer", "connection reset by peer", "socket timeout")


class LostProcessError(RuntimeError):
    """Another process of the run died, hangs, or stopped with an error; the message names it."""


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class RollCall:
    """Notes of the processes of a team in their common store."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        """Sign in.

        Args:
            store: that all processes share and that outlives each (torchrun keeps it).
            rank, size: of this process, and of the team.
        """
        self._store, self._rank, self._size = dist.PrefixStore("roll_call", store), rank, size
        self._store.set(f"who/{rank}", f"on {socket.gethostname()}, pid {os.getpid()}")

    def report(self, error: BaseException) -> None:
        """Leave word why this process stops."""
        try:
            self._store.set(f"left/{self._rank}", f"{type(error).__name__}: {error}")
        except RuntimeError:
            pass  # whoever kept the store is gone: nobody is there to be told

    def explain(self, patience: float = PATIENCE) -> LostProcessError:
        """Call the roll; an error that names who is missing.

        Call it when the connections of this process are closed, so that others who wait for it come to call as well.
        """
        lost = []
        try:
            self._store.set(f"here/{self._rank}", "")
            waiting, end = set(range(self._size)) - {self._rank}, time.monotonic() + patience
            while waiting and time.monotonic() < end:
                waiting = {rank for rank in waiting if not self._answers(rank)}
                time.sleep(0.1)
            for rank in range(self._size):
                if rank in waiting:
                    lost.append(f"{self._name(rank)} died or hangs")
                elif self._store.check([f"left/{rank}"]):
                    lost.append(f"{self._name(rank)} stopped with {self._store.get(f'left/{rank}').decode()}")
            self._store.set(f"done/{self._rank}", "")
            if self._rank == 0:  # it may be the one that keeps the store
                self._wait_for_the_others(set(range(self._size)) - waiting)
        except RuntimeError:
            lost.append("process 0, which keeps the meeting point, cannot be reached")
        what = "; ".join(lost) or "a connection between processes broke, though all of them answer"
        return LostProcessError(
            f"{what}. Process {self._rank} stops as well; look at the output of the one that is named, then start all "
            "again with --resume, which goes on from the last checkpoint"
        )

    def _wait_for_the_others(self, calling: set[int], seconds: float = 3.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(
            self._store.check([f"done/{rank}"]) or self._store.check([f"left/{rank}"]) for rank in calling
        ):
            time.sleep(0.1)

    def _answers(self, rank: int) -> bool:
        return self._store.check([f"here/{rank}"]) or self._store.check([f"left/{rank}"])

    def _name(self, rank: int) -> str:
        who = self._store.get(f"who/{rank}").decode() if self._store.check([f"who/{rank}"]) else "never seen"
        return f"process {rank} of {self._size} ({who})"
