"""The processes of a training, and what they exchange."""

from __future__ import annotations

from typing import Any

from kernels.lowlevel import Array


class World:
    """The processes of a training: this one alone; `MpiWorld` has several.

    All processes call the same methods in the same order.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        The number of processes.
    """

    rank = 0
    size = 1

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        return [value]

    def use_gpu(self) -> None:
        """Make a GPU the current one, if this process is to have one of its own."""

    def stop(self, status: int) -> None:
        """End the other processes at once, which would wait for this one."""

    def sum(self, parts: Array) -> Array:
        """Return the sum of all shards' vectors, in the order of the shards.

        So the bits do not depend on the number of processes; with MPI's or NCCL's own all-reduce
        they would. If each process has one shard, as many bytes are sent as by an all-reduce: each
        process receives its piece of every vector, adds the pieces up, and sends the sum to all.

        Parameters
        ----------
        parts : array (own shards, size, n)
            The vectors of this process's shards, in their order; overwritten.

        Returns
        -------
        array (size, n)
        """
        by_process = parts.swapaxes(0, 1)
        if not by_process.flags.c_contiguous:  # there are several shards and several processes
            by_process = by_process.copy()
        pieces = self._all_to_all(by_process).reshape(-1, parts.shape[2])  # of all shards
        total = pieces[0]
        for piece in pieces[1:]:
            total += piece
        return self._all_gather(total)

    def agree(self, **facts: Any) -> None:
        """Raise ValueError unless all processes have equal facts."""
        of_all = self.gather(facts)
        for name in facts:
            for rank, theirs in enumerate(of_all):
                if theirs[name] != of_all[0][name]:
                    raise ValueError(
                        f"{name.replace('_', ' ')}: process {rank} has {theirs[name]}, expected "
                        f"{of_all[0][name]} as in process 0"
                    )

    def _all_to_all(self, parts: Array) -> Array:
        """Return, by rank, what each process has at this one's index of the first axis."""
        return parts

    def _all_gather(self, piece: Array) -> Array:
        """Return the pieces of all processes, stacked by rank."""
        return piece[None]
