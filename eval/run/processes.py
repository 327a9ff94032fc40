"""Several processes that share one run: this process's rank and device.

`accelerate launch`, `torchrun` and `mpirun` start the processes and set their ranks. The processes
do not communicate: each answers its own batches and writes its own files in the run's folder, and
the one that finds all answers there merges them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eval.errors import EvaluationError

# Variables of torchrun and accelerate, Intel's and Hydra's MPI, and Open MPI.
COUNT: Final = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
INDEX: Final = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")
LOCAL: Final = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK")


@dataclass(frozen=True, slots=True)
class Process:
    """This process's rank among the processes of a run.

    Attributes:
        index: Its rank, from 0.
        count: Number of processes.
        local: Its rank on its machine, from 0.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_alone(self) -> bool:
        """Whether the run has only this process."""
        return self.count == 1

    def answers_batch(self, batch: int) -> bool:
        """Return whether this process answers a batch of the run."""
        return batch % self.count == self.index

    def device(self, wanted: str | None, gpus: int) -> str | None:
        """Return the device of this process.

        Args:
            wanted: The device in the settings: None, "cpu", "cuda:N" or "auto".
            gpus: Number of GPUs of this machine.
        Raises:
            EvaluationError: If all processes would use the same GPUs.
        """
        if self.is_alone or wanted == "cpu" or (wanted is None and not gpus):
            return wanted
        if wanted is not None:
            raise EvaluationError(
                f"device {wanted} for {self.count} processes, but each process needs its own GPU; "
                "leave --gpu-id and --device out, or start one process"
            )
        if self.local >= gpus:
            raise EvaluationError(
                f"process {self.local} of this machine finds {gpus} GPU(s); start one process for "
                "each GPU (--num_processes), or pass --device cpu"
            )
        return f"cuda:{self.local}"


def this_process(environment: Mapping[str, str] | None = None) -> Process:
    """Read this process's rank from the variables that its launcher sets.

    Args:
        environment: The variables; the process's own if None.
    Raises:
        EvaluationError: If they are invalid.
    """
    environment = os.environ if environment is None else environment
    count = _number(COUNT, environment)
    if count is None:
        return Process()
    index = _number(INDEX, environment)
    local = _number(LOCAL, environment)
    if index is None or not 0 <= index < count:
        raise EvaluationError(
            f"process {index} of {count}: the launcher must set {INDEX[0]}, from 0, and "
            f"{COUNT[0]} (accelerate launch, torchrun and mpirun do)"
        )
    return Process(index, count, index if local is None else local)


def launcher_note(environment: Mapping[str, str] | None = None) -> str | None:
    """Return a note if accelerate was asked for several processes but started one."""
    environment = os.environ if environment is None else environment
    on_cpu = environment.get("ACCELERATE_USE_CPU") == "True"
    if on_cpu and "MASTER_PORT" in environment and this_process(environment).is_alone:
        return (
            "note: `accelerate launch --cpu` starts one process unless it has --mpirun_hostfile; "
            "for several use torchrun --nproc_per_node, or accelerate launch --multi_gpu (which "
            "needs no GPU) with --device cpu"
        )
    return None


def _number(names: tuple[str, ...], environment: Mapping[str, str]) -> int | None:
    for name in names:
        if environment.get(name):
            try:
                return int(environment[name])
            except ValueError as error:
                raise EvaluationError(f"{name}={environment[name]!r} is not a number") from error
    return None
