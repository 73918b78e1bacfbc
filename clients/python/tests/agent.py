"""A double of the SPIFFE agent: the Workload API on a Unix socket, with SVIDs of the test's own."""

from __future__ import annotations

import concurrent.futures
import pathlib
import queue
import threading

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from spiffe._proto import workload_pb2, workload_pb2_grpc
from world import World, spiffe_id

DER = serialization.Encoding.DER


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Serves one workload; `rotate` pushes a new SVID to all who watch, `hang_up` ends their streams."""

    def __init__(self, world: World, name: str, folder: pathlib.Path) -> None:
        self.world, self.name = world, name
        self.socket = f"unix://{folder / 'agent.sock'}"
        self.registered = True
        self.lock = threading.Lock()
        self.watchers: list[queue.Queue] = []
        self.pushed = 0
        self.current = self._response()
        self._serve()

    def _serve(self) -> None:
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self.server)
        self.server.add_insecure_port(self.socket.replace("unix://", "unix:"))
        self.server.start()

    def _response(self):
        chain, key = self.world.make(self.name)
        leaf = x509.load_pem_x509_certificate(chain)
        private = serialization.load_pem_private_key(key, None)
        root = x509.load_pem_x509_certificate(self.world.bundle.read_bytes())
        svid = workload_pb2.X509SVID(
            spiffe_id=spiffe_id(self.name),
            x509_svid=leaf.public_bytes(DER),
            x509_svid_key=private.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            bundle=root.public_bytes(DER),
        )
        return workload_pb2.X509SVIDResponse(svids=[svid])

    def FetchX509SVID(self, request, context):
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if not self.registered:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        mine: queue.Queue = queue.Queue()
        with self.lock:
            self.watchers.append(mine)
            mine.put(self.current)
        while context.is_active():
            try:
                response = mine.get(timeout=0.1)
            except queue.Empty:
                continue
            if response is None:
                return
            yield response

    def rotate(self) -> None:
        with self.lock:
            self.current = self._response()
            self.pushed += 1
            for watcher in self.watchers:
                watcher.put(self.current)

    def hang_up(self) -> None:
        with self.lock:
            for watcher in self.watchers:
                watcher.put(None)
            self.watchers.clear()

    def stop(self) -> None:
        self.server.stop(0).wait()
