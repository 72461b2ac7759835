"""What `test_faults.py` runs: ``four_members.py PORT`` forks four processes of one team; that of rank 1 kills itself.

In gloo's ring the process of rank 3 has no connection of its own to the lost one.
"""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import nn

from src.engine.distributed import join_team, team_work
from src.engine.roll_call import LostProcessError

STEPS, LOST = 100, 1


def member(rank: int, port: str) -> int:
    """Take steps together until one is lost; 0 if it is named, and nobody else is."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "4", "RANK": str(rank)}
    try:
        with team_work():
            team = join_team(torch.device("cpu"))
            network = team.wrap(nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 3)))
            for step in range(STEPS):
                network(torch.ones(2, 300)).sum().backward()
                if step == 3 and rank == LOST:
                    os.kill(os.getpid(), signal.SIGKILL)
                team.any(False, torch.device("cpu"))
    except LostProcessError as error:
        said = str(error).split(f". Process {rank} stops")[0]
        return int(not said.startswith(f"process {LOST} of 4 (") or ";" in said)
    return 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            sys.exit(member(number, sys.argv[1]))
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(0 if statuses == [0, -signal.SIGKILL, 0, 0] else f"exit statuses {statuses}")
