"""The rendezvous of a stage's processes on one machine, at a port that only this machine reaches.

torchrun's own ones listen on all interfaces, and what its "c10d" reads there is a pickle: whoever
reaches the port runs code here. On one machine no launcher has to meet another: a store is enough.
"""

import os
import socket
import sys

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

BACKEND = "loopback"
ADDRESS = "127.0.0.1"
INTERFACE = "lo" if sys.platform == "linux" else "lo0"


class Loopback(RendezvousHandler):
    """The launcher's store, which it and the processes that it starts share."""

    def __init__(self) -> None:
        listener = socket.create_server((ADDRESS, 0))
        self._address = RendezvousStoreInfo(ADDRESS, listener.getsockname()[1])
        self._store = TCPStore(
            ADDRESS,
            self._address.master_port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )

    def next_rendezvous(self) -> RendezvousInfo:
        return RendezvousInfo(self._store, 0, 1, self._address)

    @property
    def use_agent_store(self) -> bool:
        return True

    def get_backend(self) -> str:
        return BACKEND

    def get_run_id(self) -> str:
        return BACKEND

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None: ...

    def num_nodes_waiting(self) -> int:
        return 0

    def shutdown(self) -> bool:
        return True


def options() -> list[str]:
    """Options of torchrun for one machine; the exchanges of gloo and nccl listen there too."""
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = INTERFACE
    rendezvous_handler_registry.register(BACKEND, lambda _: Loopback())
    return ["--rdzv-backend", BACKEND, "--rdzv-endpoint", ADDRESS]
