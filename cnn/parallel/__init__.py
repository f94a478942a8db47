"""Training in several processes: each takes shards of every batch, and one sum joins them.

    world = join()
    trainer = Trainer(model, optimizer, world=world)

in a script that ``mpiexec -n 2 python script.py`` starts; see cnn/README.md.
"""

from .mpi import join, joined
from .world import World

__all__ = ["World", "join", "joined"]
