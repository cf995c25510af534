"""Three nats-servers that replicate every stream to one another."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from looking import on_streams
from nats.js import JetStreamContext
from running_pipeline import until

from services.cli.machine.nats_server import MAX_PAYLOAD_BYTES, binary, free_port
from services.kernel.errors import PipelineError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.topology import BUCKETS, STREAMS

NODES = ("one", "two", "three")
_READY_S = 30
_STOP_S = 15


class Node:
    """One server of the cluster; it keeps its ports and its files over restarts."""

    def __init__(self, folder: Path, name: str, port: int, route_port: int) -> None:
        self.name = name
        self.url = f"nats://127.0.0.1:{port}"
        self.route = f"nats://127.0.0.1:{route_port}"
        self._port, self._route_port = port, route_port
        self._folder = folder / name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, routes: list[str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "nats.conf"
        config.write_text(
            f"""\
listen: "127.0.0.1:{self._port}"
server_name: "{self.name}"
max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{ store_dir: "{self._folder / "jetstream"}" }}
cluster {{
  name: "cardflow"
  listen: "127.0.0.1:{self._route_port}"
  routes: [{", ".join(f'"{route}"' for route in routes)}]
}}
"""
        )
        log = self._folder / "nats.log"
        self._process = subprocess.Popen([binary(), "--config", str(config), "--log", str(log)])

    def end(self, *, kill: bool) -> None:
        """SIGKILL, or SIGTERM and a wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Cluster:
    """The nodes, by name."""

    def __init__(self, folder: Path) -> None:
        self.nodes = {name: Node(folder, name, free_port(), free_port()) for name in NODES}

    @property
    def url(self) -> str:
        """All of them: clients go on with another one."""
        return ",".join(node.url for node in self.nodes.values())

    def start(self, name: str) -> None:
        self.nodes[name].start([node.route for node in self.nodes.values()])

    def leader_of(self, stream: str) -> str:
        return on_streams(self.url, lambda js: _leader(js, stream))

    def wait_until_in_step(self) -> None:
        """Until every stream has a leader and all its copies are up to date."""
        names = [s.name for s in STREAMS] + [f"KV_{b.name}" for b in BUCKETS]
        until(
            lambda: self._holds(lambda js: _in_step(js, names)),
            within_s=60,
            what="all nodes are in step",
            every_s=0.2,
        )

    def wait_until_elected(self) -> None:
        until(lambda: self._holds(_answers), within_s=_READY_S, what="the cluster has a leader")

    def _holds(self, claim: Callable[[JetStreamContext], Awaitable[bool]]) -> bool:
        try:
            return on_streams(self.url, claim)
        except (PipelineError, *NATS_FAULTS):
            return False


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Three nodes on loopback, ready to make streams."""
    cluster = Cluster(folder)
    with ExitStack() as stack:
        for name, node in cluster.nodes.items():
            cluster.start(name)
            stack.callback(lambda node=node: node.end(kill=True))
        cluster.wait_until_elected()
        yield cluster


async def _answers(js: JetStreamContext) -> bool:
    async with asyncio.timeout(2):
        await js.account_info()
    return True


async def _leader(js: JetStreamContext, stream: str) -> str:
    cluster = (await js.stream_info(stream)).cluster
    return (cluster.leader if cluster else None) or ""


async def _in_step(js: JetStreamContext, streams: list[str]) -> bool:
    for stream in streams:
        cluster = (await js.stream_info(stream)).cluster
        if cluster is None or not cluster.leader:
            return False
        if not all(peer.current and not peer.offline for peer in cluster.replicas or []):
            return False
    return True
