"""A server as a command names it: its address, TLS of the proxy before it, and what every call tells that proxy."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from asr_service.client import AsyncClient, Client, Credentials, tls_credentials
from asr_service.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Connection:
    """Picklable, for processes that each open their own.

    Attributes:
        ca: certificates (PEM) to trust instead of gRPC's own; only with `tls`.
        metadata: pairs of key (lower case) and value of each call; may hold a secret, and is not shown.
    """

    address: str
    tls: bool = False
    ca: Path | None = None
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def client(self) -> Client:
        """A client of it. Raises ConfigError for a certificate file that cannot be read, or has none."""
        return Client(self.address, credentials=self._credentials())

    def async_client(self, *, own_connection: bool = False) -> AsyncClient:
        """As `client`, on an event loop; without a connection of its own it shares one with others of the process."""
        return AsyncClient(self.address, credentials=self._credentials(), own_connection=own_connection)

    def _credentials(self) -> Credentials | None:
        if not self.tls:
            return None
        try:
            if self.ca is not None:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self.ca)  # gRPC would only log it
            return tls_credentials(self.ca)
        except ssl.SSLError as error:
            raise ConfigError(f"--ca {self.ca} has no certificate (PEM)") from error
        except OSError as error:
            raise ConfigError(f"cannot read --ca {self.ca}: {error.strerror}") from error
