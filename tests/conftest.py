"""Every process of the tests computes on one thread.

Two threads of a tiny model only wait for each other where other processes want the cores: beside two such, 60 steps of
training took 0.6 s of computing on one thread and 10 s on two. What the lab itself starts chooses its threads itself.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything loads torch
