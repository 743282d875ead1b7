"""The file an item names, such as its picture, read as if somebody hostile had written the name and the file.

In: a path relative to the source's folder, or an address. Out: its bytes, or UnreadableError with a reason to count;
and the base of the encoders of such files.
Nothing outside of the folder is read, whatever links say, nor anything but ordinary files; an address is fetched only
from hosts that the settings name, redirects do not lead away from them, and a name that leads to this machine or its
network is not followed there.
"""

import io
import math
import os
import socket
import stat
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Collection, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import numpy as np
from pydantic import Field

from recops.encoders.content.item_encoder import ItemEncoder, Options, UnreadableError, normalised
from recops.errors import CallError
from recops.protocols import Item

MAX_REDIRECTS = 3
AT_ONCE = 65_536  # bytes
NAT64 = int(IPv6Address("64:ff9b::")) >> 32
# Private ones that the standard library of this Python may call global: NAT64 of a network's own, and sites of old.
PRIVATE = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))


class FileOptions(Options):
    """Where the files of items are, and what is read of them."""

    folder: str | None = Field(None, description="what paths are relative to, in the source's folder")
    file: str | None = Field(
        None, description="path for items that name none; {item_id} stands for the id: posters/{item_id}.jpg"
    )
    hosts: list[str] = Field(
        [],
        description="hosts that addresses are fetched from; empty: nothing is fetched. What leads into a private "
        "network is fetched only where its IP address stands here too",
    )
    max_bytes: int = Field(20_000_000, ge=1, description="larger files are not read")
    timeout_s: float = Field(10.0, gt=0, description="for an answer to begin, and for all of it")
    harmless: ClassVar[frozenset[str]] = frozenset({"folder", "file", "hosts", "max_bytes", "timeout_s"})


class ItemFiles:
    """Reads the files of items by `options`; `source` is the folder of the source, None where there is none."""

    def __init__(self, options: FileOptions, source: Path | None) -> None:
        self.options = options
        self.folder = None if source is None else (source / (options.folder or "")).resolve()

    def reference(self, item: Item, named: str | None) -> str | None:
        """The path or address of an item's file: what it names itself, else `file` of the settings, else None."""
        if named and named.strip():
            return named.strip()
        return self.options.file and self.options.file.replace("{item_id}", str(item["item_id"]))

    def read(self, reference: str) -> bytes:
        """All bytes of the file. Raises UnreadableError."""
        if "://" in reference:
            return self._fetch(reference)
        if self.folder is None:
            raise UnreadableError("no folder to read from")
        try:
            path = (self.folder / reference).resolve()
            if not path.is_relative_to(self.folder):
                raise UnreadableError("outside of the source's folder")
            # A pipe would wait for ever where it was opened to read; a link may have taken the file's place just now.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise UnreadableError("not a file")
                return self._limited(file)
        except FileNotFoundError:
            raise UnreadableError("not found") from None
        except IsADirectoryError:
            raise UnreadableError("not a file") from None
        except (OSError, ValueError, RuntimeError):  # no permission, a name with NUL or too long, links in a circle
            raise UnreadableError("not readable") from None

    def _limited(self, file: io.BufferedIOBase, until: float = math.inf) -> bytes:
        parts, size = [], 0
        while size <= self.options.max_bytes and (part := file.read1(AT_ONCE)):
            parts.append(part)
            size += len(part)
            if monotonic() > until:
                raise UnreadableError("comes too slowly")
        found = b"".join(parts)
        if size > self.options.max_bytes:
            raise UnreadableError("larger than max_bytes")
        if not found:
            raise UnreadableError("empty")
        return found

    def _fetch(self, address: str) -> bytes:
        if not self.options.hosts:
            raise UnreadableError("an address, and no hosts are allowed")
        until = monotonic() + self.options.timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            _check_address(address, self.options.hosts)
            try:
                with _open_public(address, self.options.hosts, self.options.timeout_s) as answer:
                    return self._limited(answer, until)
            except UnreadableError:
                raise
            except urllib.error.HTTPError as error:
                if error.code not in (301, 302, 303, 307, 308) or not (target := error.headers.get("Location")):
                    raise UnreadableError(f"answered {error.code}") from None
                address = urljoin(address, target)
            except (OSError, ValueError, HTTPException):
                raise UnreadableError("cannot be fetched") from None
        raise UnreadableError("too many redirects")


class FileEncoder(ItemEncoder):
    """Base of the encoders of files. A part says which file an item `named`, and makes its bytes a `vector`."""

    options: FileOptions

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        super().__init__(folder, threads, source)
        self._files = ItemFiles(self.options, source)

    @abstractmethod
    def named(self, item: Item) -> str | None:
        """The path or address that stands in the item itself, if any."""

    @abstractmethod
    def vector(self, data: bytes) -> np.ndarray:
        """[D], of any length. Raises UnreadableError."""

    def content(self, item: Item) -> bytes | None:
        """The bytes of the item's file."""
        reference = self._files.reference(item, self.named(item))
        return None if reference is None else self._files.read(reference)

    def encode_contents(self, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]:
        vectors_BD = np.zeros((len(contents), self.dim), np.float32)
        reasons: list[str | None] = [None] * len(contents)
        for row, data in enumerate(contents):
            try:
                vectors_BD[row] = self.vector(data)
            except UnreadableError as error:
                reasons[row] = str(error)
        return normalised(vectors_BD), reasons


def _check_address(address: str, hosts: Collection[str]) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        raise UnreadableError("not an address") from None
    if parts.scheme not in ("http", "https"):
        raise UnreadableError("neither http nor https")
    if host not in {allowed.lower() for allowed in hosts}:
        raise UnreadableError("a host that is not allowed")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, whatever way it writes one that is not."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    meant: list[IPv4Address | IPv6Address | None] = [found]
    if isinstance(found, IPv6Address):
        if any(found in network for network in PRIVATE):
            return False
        # Addresses of version 4 in ones of version 6: mapped, 6to4, Teredo, behind the prefix of NAT64 and behind none.
        meant += [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        meant += [IPv4Address(int(found) & 0xFFFFFFFF)] if int(found) >> 32 in (NAT64, 0) else []
    return all(one.is_global and not one.is_multicast for one in meant if one is not None)


def _open_public(address: str, hosts: Collection[str], timeout_s: float) -> Any:
    """The answer to a GET, from a server of the public internet or one whose IP address `hosts` names. Without the
    proxy of the environment, which would look the name up itself. Raises UnreadableError, HTTPError and OSError."""

    def connect(
        place: tuple[str, int], timeout: float | None = None, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        # What was looked up is what is connected to: a second look could be answered otherwise.
        found = [entry[4][0] for entry in socket.getaddrinfo(*place, type=socket.SOCK_STREAM)]
        if not all(is_public(str(ip)) or str(ip) in hosts for ip in found):
            raise UnreadableError("an address of a private network")
        for ip in found[:-1]:
            try:
                return socket.create_connection((str(ip), place[1]), timeout, source_address)
            except OSError:
                continue  # the next may answer
        return socket.create_connection((str(found[-1]), place[1]), timeout, source_address)

    def connecting(kind: type[HTTPConnection]) -> Any:
        def made(*arguments: Any, **options: Any) -> HTTPConnection:
            connection = kind(*arguments, **options)
            # Where http.client keeps how it connects; TLS goes on top of it with the host's name.
            connection._create_connection = connect  # type: ignore[attr-defined]
            return connection

        return made

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(connecting(HTTPConnection), request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(connecting(HTTPSConnection), request)

    no_proxy = urllib.request.ProxyHandler({})
    return urllib.request.build_opener(no_proxy, Plain, Secure, _NoRedirects).open(address, timeout=timeout_s)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the answer that redirects is raised as the HTTPError that it is."""


def open_without_redirects(request: urllib.request.Request, timeout_s: float) -> Any:
    """The answer to an http request, to be closed by the caller. Raises HTTPError for any but 2xx, and OSError where
    there is none."""
    if not request.full_url.startswith(("http://", "https://")):
        raise CallError(f"{request.full_url}: must start with http:// or https://")
    return urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout_s)
