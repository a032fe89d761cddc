"""Where HTTP is served, and with which token."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from pathlib import Path

from ..errors import SetupError

TOKEN_VARIABLE = "MAS_MCP_TOKEN"
# Shortest token, in characters.
MIN_TOKEN = 16
# Longest file with a token, in bytes.
MAX_TOKEN_BYTES = 4096
# Connections that may wait to be taken.
BACKLOG = 128


def token(path: Path | None) -> str | None:
    """The token of the file, or of the environment."""
    if path is None:
        found, where = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if found is None:
            return None
    else:
        where = str(path)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise SetupError(f"{path}: others than its owner can read it; chmod 600 it")
                content = file.read(MAX_TOKEN_BYTES + 1)
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}") from error
        if len(content) > MAX_TOKEN_BYTES:
            raise SetupError(f"{path}: longer than {MAX_TOKEN_BYTES} bytes")
        try:
            found = content.decode()
        except UnicodeDecodeError:
            raise SetupError(f"{path}: no text in UTF-8") from None
    found = found.strip()
    if len(found) < MIN_TOKEN:
        raise SetupError(f"{where}: a token has {MIN_TOKEN} characters or more")
    return found


def place(address: str) -> tuple[str, int]:
    """HOST:PORT in parts."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:
        raise SetupError(f"--http {address}: expected HOST:PORT")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket at this place."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # From here on who connects waits until the server takes it.
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise SetupError(f"--http {host}:{port}: {error.strerror or error}") from error
    return listening
