"""Who the agent is: its PEM files, and what the environment says."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from .errors import SetupError

CA = "MAS_TLS_CA"
CERT = "MAS_TLS_CERT"
KEY = "MAS_TLS_KEY"
ADDRESS = "MAS_SERVER_ADDR"


@dataclass(frozen=True)
class Credentials:
    """The PEM files of mutual TLS. The agent's id is in its certificate. The files are read at every connect."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def from_env(cls) -> Credentials:
        """From ``MAS_TLS_CA``, ``MAS_TLS_CERT`` and ``MAS_TLS_KEY``, as ``mas run`` sets them."""
        given = variables(CA, CERT, KEY)
        return cls(Path(given[CA]), Path(given[CERT]), Path(given[KEY]))

    def check(self) -> None:
        """Names everything that is wrong with the files."""
        wrong = []
        texts: dict[Path, str] = {}
        for path in (self.ca, self.cert, self.key):
            try:
                texts[path] = Path(path).read_bytes().decode("ascii", "ignore")
            except OSError as error:
                wrong.append(f"{path}: {error.strerror}")
        for path in (self.ca, self.cert):
            if path in texts and not _holds_certificates(texts[path]):
                wrong.append(f"{path}: no certificate in PEM")
        if self.key in texts and "PRIVATE KEY-----" not in texts[self.key]:
            wrong.append(f"{self.key}: no private key in PEM")
        if not wrong:
            wrong.extend(self._mismatch())
        if wrong:
            raise SetupError("; ".join(wrong))

    def _mismatch(self) -> list[str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                return [f"{self.key}: is not the key of {self.cert}"]
            return [f"{self.key}: no private key that can be read without a password"]
        except OSError as error:
            return [f"{self.key}: {error.strerror}"]
        return []

    def load(self) -> grpc.ChannelCredentials:
        """The files as they are now."""
        self.check()
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=Path(self.ca).read_bytes(),
                private_key=Path(self.key).read_bytes(),
                certificate_chain=Path(self.cert).read_bytes(),
            )
        except OSError as error:
            raise SetupError(f"{error.filename}: {error.strerror}") from error


def _holds_certificates(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):
        return False
    return True


def variables(*names: str) -> Mapping[str, str]:
    """What the environment has under these names; all that are missing are named at once."""
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        last = missing.pop()
        which = f"{', '.join(missing)} and {last} are" if missing else f"{last} is"
        raise SetupError(f"{which} not set; `mas run` sets them, or give the values to Agent in the program")
    return {name: os.environ[name] for name in names}
