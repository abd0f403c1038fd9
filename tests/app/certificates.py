"""Certificates for tests of TLS: an authority, a server's and a client's of it, and a stranger's, as PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

Pair = tuple[Path, Path]
"""A certificate and its private key."""


class Certificates:
    """All files lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._authority, stranger = trustme.CA(), trustme.CA()
        self.ca, self.strangers_ca = folder / "ca.pem", folder / "strangers-ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))
        stranger.cert_pem.write_to_path(str(self.strangers_ca))
        self._server = self._authority.issue_cert("127.0.0.1", "localhost")
        self.server = self._written(folder / "server.pem", self._server)
        self.client = self._written(folder / "client.pem", self._authority.issue_cert("client.example"))
        self.stranger = self._written(folder / "stranger.pem", stranger.issue_cert("client.example"))

    @staticmethod
    def _written(path: Path, made: trustme.LeafCert) -> Pair:
        key = path.with_suffix(".key")
        made.cert_chain_pems[0].write_to_path(str(path))
        made.private_key_pem.write_to_path(str(key))
        return path, key

    def mutual(self) -> ssl.SSLContext:
        """For a server that lets in only who shows a certificate of the authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server.configure_cert(context)
        self._authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context
