"""What Lightning is told of the processes that train together."""

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from medseg.system.distributed.ranks import Ranks


class Processes(ClusterEnvironment):
    """Processes that have met already, each of which is to Lightning a machine of its own, with one device.

    So Lightning starts none, reads no launcher's variables, whose devices are its processes' business, and takes a
    training of one process in an allocation of Slurm's for what it is.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Whether all processes are there."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process listens."""
        return self.ranks.place.address

    @property
    def main_port(self) -> int:
        """The port at which it does."""
        return self.ranks.place.port

    @staticmethod
    def detect() -> bool:
        """Tell that this is never to be guessed."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.ranks.size

    def set_world_size(self, size: int) -> None:
        """Leave it as it is."""

    def global_rank(self) -> int:
        """Return the number of this process."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """Leave it as it is."""

    def local_rank(self) -> int:
        """Return the number of the process's one device."""
        return 0

    def node_rank(self) -> int:
        """Return the number of what to Lightning is a machine."""
        return self.ranks.rank
