"""A port for a server that is about to be started."""

import random
import socket

# Below those that Linux gives to the near ends of connections (from 32,768): one of these could be taken meanwhile.
PORTS = range(20_000, 32_000)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nobody listens on now, drawn by chance, so that two who ask at once hardly get the same.
    Raises OSError where there is none."""
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"{host}: no free port between {PORTS.start} and {PORTS.stop}")
