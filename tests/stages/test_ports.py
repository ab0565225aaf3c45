"""The ports of stages of several processes on one machine."""

import time

import psutil
import pytest

from clipzoo.runtime.loopback import INTERFACE

STAGES = [("train",), ("test",), ("zero_shot", "demo_unseen")]


def listening(process: psutil.Process) -> set[str]:
    """Addresses at which a process and all that it has started listen now."""
    addresses = set()
    for one in [process, *process.children(recursive=True)]:
        try:
            connections = one.net_connections(kind="inet")
        except psutil.Error:  # it has ended
            continue
        addresses |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return addresses


@pytest.fixture
def other_interface() -> str:
    """One that other machines could reach."""
    for name, addresses in psutil.net_if_addrs().items():
        in_use = any(a.address.count(".") == 3 for a in addresses)
        if in_use and name != INTERFACE and psutil.net_if_stats()[name].isup:
            return name
    pytest.skip("this machine has only its loopback interface")


@pytest.mark.slow
def test_on_one_machine_nothing_listens_but_on_loopback(copy_of_demo, other_interface):
    """In any stage of several processes, at any time, whatever interface a cluster's shell sets."""
    copy_of_demo.set(runtime__processes=2, train__epochs=2)
    for stage in STAGES:
        process = copy_of_demo.start(*stage, GLOO_SOCKET_IFNAME=other_interface)
        seen = set()
        while process.poll() is None:
            seen |= listening(psutil.Process(process.pid))
            time.sleep(0.2)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "processes 2 (2 in all" in out
        assert seen == {"127.0.0.1"}, stage
