"""Starts the service with BentoML. Says what is wrong with the call before anything is started."""

import errno
import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from recops import signing
from recops.errors import CallError
from recops.serving.guard import is_loopback
from recops.serving.keys import read_keys
from recops.serving.settings import read_settings

# Workers of a service killed while it was starting hold the port until they have come so far as to notice.
PATIENCE_S = 5.0
SERVICE = "recops.serving.service:RecopsService"


def serve(
    releases: Path | None,
    bundle: Path | None,
    store: str | None,
    host: str,
    port: int,
    workers: int,
    environment: Mapping[str, str],
    tls: tuple[Path, Path] | None = None,
) -> int:
    """Becomes the BentoML server (same process id, so that signals reach it) and does not come back.

    `environment` holds everything the server may know, RECOPS_API_KEYS included; `tls` are the files of a certificate
    and its private key. Raises CallError for a taken port, an address other than loopback without keys, files that are
    missing or hold something else, and settings that are wrong.
    """
    environment = {**environment, "RECOPS_WORKERS": str(workers)}
    for name, value in (("RELEASES", releases), ("BUNDLE", bundle), ("STORE", store)):
        environment.pop(f"RECOPS_{name}", None)
        if value is not None:
            environment[f"RECOPS_{name}"] = str(value)
    settings = read_settings(environment)
    if not settings.keys and settings.keys_file is None and not is_loopback(host):
        raise CallError(f"host {host}: not loopback, and there are no keys (`recops keys add`, RECOPS_API_KEYS)")
    if settings.keys_file is not None and not read_keys(settings.keys_file) and not settings.keys:
        raise CallError(f"{settings.keys_file}: holds no keys, so that nobody could call; `recops keys add` makes one")
    if settings.verify_key is not None:
        signing.load_public(settings.verify_key)
    if tls is not None:
        check_tls(*tls)
    check_port(host, port)
    environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = str(settings.threads)
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port)]
    if tls is not None:
        command += ["--ssl-certfile", str(tls[0]), "--ssl-keyfile", str(tls[1])]
    address = f"http{'s' * (tls is not None)}://{host}:{port}"
    if settings.log_format == "text":  # else BentoML's own line says it, as JSON
        print(f"recops: {address} (docs at /docs), {workers} worker{'s' * (workers > 1)}", flush=True)
    os.execve(sys.executable, command, environment)


def check_tls(cert: Path, key: Path) -> None:
    """Raises CallError for files that are no certificate with its private key; the server would start, and never
    answer."""
    for file in (cert, key):
        if not file.is_file():
            raise CallError(f"{file}: no such file (serve.tls_cert, serve.tls_key)")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CallError(
            f"{cert}, {key}: no certificate and its private key without a password, in PEM "
            f"({getattr(error, 'reason', None) or error})"
        ) from None


def check_port(host: str, port: int, patience_s: float = PATIENCE_S, advice: str = "choose another --port") -> None:
    """Raises CallError when the address cannot be bound, also not after `patience_s`."""
    until = time.monotonic() + patience_s
    while True:
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                message = f"{host}:{port}: cannot be served at ({error.strerror}); {advice}"
                raise CallError(message) from None
        time.sleep(0.1)
