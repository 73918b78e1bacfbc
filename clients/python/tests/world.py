"""A real server with a trust domain of its own, whose CA is here: SVIDs are made, rotated and spoilt at will."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PROJECT = pathlib.Path(__file__).resolve().parents[3]
DOMAIN = "dev.mayfly.internal"
SERVER_ID = f"spiffe://{DOMAIN}/mayfly"
AUDIENCE = "https://echo.dev.mayfly.internal"
MARKER = ".mayfly-dev"


def binary() -> str:
    return os.environ.get("MAYFLY_BIN", str(PROJECT / "target/debug/mayfly"))


# Whoever has the UDP port of a number has the number, in the tests of every language, until its process ends.
_held: list[socket.socket] = []


def free_port(many: int = 1) -> int:
    """The first of so many ports in a row that are free now, and stay ours while nobody listens at them.

    Below 32768: from there on the system gives ports to outgoing connections, and one of those may have a port in the moment
    that a server lets it go."""
    for first in range(20_000 + os.getpid() % 97 * 120, 32_000 - many):
        with contextlib.ExitStack() as tried:
            try:
                held = [_bound(tried, socket.SOCK_DGRAM, first + n) for n in range(many)]
                for n in range(many):
                    _bound(tried, socket.SOCK_STREAM, first + n)
            except OSError:
                continue
            _held.extend(socket.socket(fileno=s.detach()) for s in held)
            return first
    raise RuntimeError("no free ports below 32768")


def _bound(tried: contextlib.ExitStack, kind: int, port: int) -> socket.socket:
    s = tried.enter_context(socket.socket(socket.AF_INET, kind))
    s.bind(("127.0.0.1", port))
    return s


def spiffe_id(name: str) -> str:
    return f"spiffe://{DOMAIN}/{name}"


class World:
    """`mayfly dev up` in a folder, its echo upstream at a port of ours."""

    def __init__(self, folder: pathlib.Path, policy: str = "") -> None:
        self.home = folder
        self.policy = policy
        self.folder = folder / "world"
        self.echo_port = free_port()
        # The same ports each time, so that a server that starts again is found where it was.
        self.port = free_port(3)
        self._prepare()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("MAYFLY_")}
        # A home of its own: the dev server leaves a context for the command line there.
        self.env |= {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
        self.child: subprocess.Popen[bytes] | None = None
        self.start()

    def _prepare(self) -> None:
        """The registration of the echo upstream with our own target, before the server imports it."""
        upstreams = self.folder / "policy" / "upstreams"
        upstreams.mkdir(parents=True)
        (self.folder / MARKER).write_text("A dev world of mayfly.\n")
        samples = PROJECT / "src/cli/samples"
        (self.folder / "policy/policy.cedar").write_text((samples / "policy.cedar").read_text() + self.policy)
        text = (samples / "upstreams/echo.toml").read_text()
        (upstreams / "echo.toml").write_text(text.replace("http://127.0.0.1:7780", f"http://127.0.0.1:{self.echo_port}"))

    def start(self) -> None:
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [binary(), "dev", "up", "--dir", str(self.folder), "--port", str(self.port)]
        with open(self.home / "server.log", "ab") as log:
            self.child = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while not ready.exists():
            if self.child.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError("the server did not start:\n" + (self.home / "server.log").read_text()[-2000:])
            time.sleep(0.05)
        # Written in one piece, but read it until it is whole all the same.
        self.addresses = json.loads(ready.read_text())

    def stop(self, how: int = signal.SIGTERM) -> None:
        assert self.child is not None
        self.child.send_signal(how)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    @property
    def address(self) -> str:
        return self.addresses["workload"]

    @property
    def issuer(self) -> str:
        """The issuer of its one environment."""
        return f"https://localhost:{self.port + 2}/dev"

    @property
    def bundle(self) -> pathlib.Path:
        return self.folder / "bundle.pem"

    def cli(self, *args: str, name: str = "operator-you", check: bool = True, stdin: str | None = None) -> str:
        """The command line as an operator."""
        command = [binary(), "--config", str(self.folder / f"{name}.toml"), *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=90, input=stdin, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{args} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def audit(self, event: str, since: int = 0) -> list[dict]:
        """The records of an event after a seq, oldest first."""
        found = json.loads(self.cli("audit", "search", "--event", event, "--limit", "1000", "-o", "json"))
        return [record for record in reversed(found) if record["seq"] > since]

    def head(self) -> int:
        return json.loads(self.cli("audit", "search", "--limit", "1", "-o", "json"))[0]["seq"]

    def revoke(self, *target: str) -> str:
        """Revokes, and waits until every follower refuses it."""
        return self.cli("revoke", *target, "--reason", "test", "--wait", "--timeout", "60s", "--confirm", "all")

    def authority(self):
        key = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        return x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes()), key

    def svid(self, name: str, life: float = 3600, dns: tuple[str, ...] = (), at: pathlib.Path | None = None) -> dict[str, str]:
        """An SVID with a new key, in files; the environment that names them."""
        chain, key = self.make(name, life, dns)
        folder = at or self.home / "svids" / name
        folder.mkdir(parents=True, exist_ok=True)
        # Two files that do not fit together for a moment, as in the world.
        write(folder / "key.pem", key)
        write(folder / "svid.pem", chain)
        return self.environment(folder / "svid.pem", folder / "key.pem")

    def environment(self, svid: pathlib.Path, key: pathlib.Path) -> dict[str, str]:
        return {
            "MAYFLY_ADDRESS": self.address,
            "MAYFLY_SVID": str(svid),
            "MAYFLY_KEY": str(key),
            "MAYFLY_BUNDLE": str(self.bundle),
            "MAYFLY_SERVER_ID": SERVER_ID,
        }

    def make(self, name: str, life: float = 3600, dns: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
        """An SVID and its key, PEM."""
        ca, ca_key = self.authority()
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.UniformResourceIdentifier(spiffe_id(name)), *(x509.DNSName(d) for d in dns)]
        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"], False
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name.rsplit("/", 1)[-1])]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(seconds=60))
            .not_valid_after(now + datetime.timedelta(seconds=life))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, encipher_only=False, decipher_only=False, **usage), critical=True
            )
            .add_extension(
                x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return certificate.public_bytes(serialization.Encoding.PEM), pem


def write(path: pathlib.Path, data: bytes) -> None:
    aside = path.with_suffix(".new")
    aside.write_bytes(data)
    aside.chmod(0o600)
    aside.replace(path)
