"""Who the agent is and where its server is: from flags, from `mas.yaml`, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import _credentials
from ..agent import Credentials
from ..errors import SetupError

CONFIG_NAME = "mas.yaml"
CONFIG_VARIABLE = "MAS_CONFIG_FILE"
# Where the server listens when mas.yaml does not say.
LISTEN_ADDR = "127.0.0.1:50051"
# Addresses that a server listens on and nobody can connect to, and what leads to the same server from this machine.
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
# Longest configuration that is read, in bytes.
MAX_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    agent: str | None = None
    config: Path | None = None
    address: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Identity:
    """An agent's certificate, and its server."""

    address: str
    credentials: Credentials
    agent: str | None
    """The id that the certificate has to be of, where one was named."""


def find(given: Given) -> Identity:
    """A flag comes first. The rest is from `mas.yaml` where an agent is named, and from the environment else."""
    if (given.cert is None) != (given.key is None):
        raise SetupError("--cert and --key belong together")
    is_complete = given.address and given.ca and given.cert
    if given.agent is not None and not is_complete:
        found = _from_config(given)
    else:
        found = _from_environment(given)
    found.credentials.check()
    return found


def _from_environment(given: Given) -> Identity:
    needed = {
        _credentials.ADDRESS: given.address,
        _credentials.CA: given.ca,
        _credentials.CERT: given.cert,
        _credentials.KEY: given.key,
    }
    missing = [name for name, value in needed.items() if value is None and not os.environ.get(name)]
    if missing:
        raise SetupError(
            "which agent is this? Give --agent NAME, an agent of mas.yaml; or --addr, --ca, --cert and --key; "
            f"or set {', '.join(missing)}"
        )
    address, ca, cert, key = (str(value or os.environ[name]) for name, value in needed.items())
    return Identity(address, Credentials(Path(ca), Path(cert), Path(key)), given.agent)


def _from_config(given: Given) -> Identity:
    assert given.agent is not None
    path = _config_path(given.config)
    config = _read(path)
    ca = given.ca or _path(path, config, "tls_ca_path")
    if ca is None:
        raise SetupError(f"{path}: tls_ca_path is missing")
    if given.cert is not None and given.key is not None:
        cert, key = given.cert, given.key
    else:
        cert, key = _files_of(given.agent, path, config, ca)
    address = given.address or str(config.get("server_listen_addr", LISTEN_ADDR))
    host, _, port = address.rpartition(":")
    if port == "0":
        raise SetupError(f"{path}: server_listen_addr has port 0; say which one the server got with --addr HOST:PORT")
    return Identity(f"{UNSPECIFIED.get(host, host)}:{port}", Credentials(ca, cert, key), given.agent)


def _config_path(explicit: Path | None) -> Path:
    if explicit is not None:
        return explicit.absolute()
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    raise SetupError(f"no {CONFIG_NAME} in {here} or in any folder above; name one with --config FILE")


def _read(path: Path) -> dict[str, Any]:
    """The file's content. Whether it is right is the server's affair; this takes what it needs."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_CONFIG_BYTES:
        raise SetupError(f"{path}: longer than {MAX_CONFIG_BYTES} bytes")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SetupError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise SetupError(f"{path}: expected keys and values")
    return content


def _path(config: Path, mapping: dict[str, Any], key: str) -> Path | None:
    value = mapping.get(key)
    return config.parent / str(value) if value else None


def _files_of(name: str, path: Path, config: dict[str, Any], ca: Path) -> tuple[Path, Path]:
    agents = config.get("agents")
    for agent in agents if isinstance(agents, list) else []:
        if isinstance(agent, dict) and agent.get("agent_id") == name:
            cert, key = _path(path, agent, "tls_cert_path"), _path(path, agent, "tls_key_path")
            if cert is not None and key is not None:
                return cert, key
            # Where `mas certs issue` puts them.
            folder = ca.parent / "agents"
            return folder / f"{name}.pem", folder / f"{name}.key"
    raise SetupError(f"{path}: no agent {name!r} in `agents`")
