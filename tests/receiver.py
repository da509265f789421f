"""A receiver of webhooks: a real HTTP server in a thread, over TLS if it is given a certificate."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ledger.signatures import HttpRequest

Answer = Callable[["Handler"], object]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer of that status."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw(*parts: bytes, pause: float = 0.0) -> Answer:
    """An answer of exactly these bytes, with a pause after each part, for as long as someone listens."""

    def answer(handler: Handler) -> None:
        for part in parts:
            handler.wfile.write(part)
            time.sleep(pause)

    return answer


class Handler(BaseHTTPRequestHandler):
    """Notes the request, then answers."""

    server: Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = f"{receiver.scheme}://{self.headers['Host']}{self.path}"
        receiver.requests.append(HttpRequest(method="POST", url=url, headers=dict(self.headers), body=body))
        answer = receiver.answers.pop(0) if receiver.answers else receiver.otherwise
        # Whoever asked may have hung up.
        try:
            answer(self)
        except OSError:
            receiver.hung_up.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that failed is the test's business."""


class Receiver:
    """`answers` are given in turn, then `otherwise`. `requests` came; `names` were asked for by TLS clients."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, certificate: Certificate | None = None) -> None:
        self.requests: list[HttpRequest] = []
        self.answers: list[Answer] = []
        self.otherwise: Answer = status(204)
        self.hung_up = threading.Event()
        self.names: list[str | None] = []
        self.scheme = "https" if certificate else "http"
        self._server = Server((host, port), Handler)
        self._server.receiver = self
        if certificate is not None:
            context = certificate.server_context()
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def url(self, host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Certificate:
    """A certificate for a host, by an authority of its own."""

    def __init__(self, directory: Path, host: str) -> None:
        self._host, self._files = host, (directory / f"{host}.pem", directory / f"{host}.key")
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {host}")])
        authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
        usage = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._authority = (
            _draft(issuer, issuer, authority_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(authority_id, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        certificate = (
            _draft(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), issuer, key)
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        self._files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        self._files[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files)
        return context

    def client_context(self) -> ssl.SSLContext:
        """What trusts this authority, and checks as strictly as the default does."""
        authority = self._authority.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=authority)


def _draft(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
