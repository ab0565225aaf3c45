"""The store of the processes on one machine."""

import os
from datetime import timedelta

import psutil
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from clipzoo.runtime import loopback


def test_the_store_listens_on_loopback_alone():
    def listening() -> set[tuple[str, int]]:
        connections = psutil.Process().net_connections(kind="inet")
        return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}

    before = listening()
    rendezvous = loopback.Loopback()
    first, again = rendezvous.next_rendezvous(), rendezvous.next_rendezvous()
    address = first.bootstrap_store_info
    assert address is not None
    assert listening() - before == {("127.0.0.1", address.master_port)}
    assert (first.rank, first.world_size) == (0, 1)
    assert again.bootstrap_store_info == address, "a restart finds what was there before"
    store = TCPStore(address.master_addr, address.master_port, timeout=timedelta(seconds=9))
    store.set("key", "value")
    assert first.store.get("key") == b"value"


def test_exchanges_use_loopback_whatever_the_environment_says(monkeypatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "eth0")
    assert loopback.BACKEND in loopback.options()
    assert (
        os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == loopback.INTERFACE
    )
