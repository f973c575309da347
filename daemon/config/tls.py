"""The section on the TLS of a receiver."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import model_validator

from daemon.config.types import Section, located
from daemon.errors import ConfigurationError


class TlsSection(Section):
    """How to meet a receiver over https. Its certificate and name are always verified, with TLS 1.2 or later."""

    ca_file: Path | None = None
    """Certificates (PEM) of the authorities that vouch for the receiver, used instead of the system's; for a receiver with a
    self-signed certificate that certificate."""
    certificate_file: Path | None = None
    """The relay's own certificate (PEM, with its chain), for receivers that ask for one. Read at the start."""
    key_file: Path | None = None
    """The key of that certificate (PEM, not encrypted); needless when `certificate_file` holds it too."""

    @model_validator(mode="after")
    def _key_of_something(self) -> TlsSection:
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file needs certificate_file")
        return self

    def context(self, path: str) -> ssl.SSLContext:
        """What connections are made with. Raises `ConfigurationError`, which names the key below `path`, for unusable files."""
        context = _with_authorities(self.ca_file, f"{path}.ca_file")
        if self.certificate_file is not None:
            _load_certificate(context, self.certificate_file, self.key_file, path)
        return context


def _modern(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    return context


def _with_authorities(file: Path | None, path: str) -> ssl.SSLContext:
    if file is None:
        return _modern(ssl.create_default_context())
    try:
        return _modern(ssl.create_default_context(cafile=located(file, path)))
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{path}: {file} holds no certificates that can be read", hint="give a PEM file: -----BEGIN CERTIFICATE----- ..."
        ) from error
    except OSError as error:
        raise _unreadable(path, file, error) from error


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None, path: str) -> None:
    files = {f"{path}.certificate_file": certificate, **({f"{path}.key_file": key} if key is not None else {})}
    places = {name: located(file, name) for name, file in files.items()}
    for name, place in places.items():
        try:
            place.read_bytes()
        except OSError as error:
            raise _unreadable(name, files[name], error) from error
    try:
        # An encrypted key would be asked for on the terminal; no password makes that an error.
        context.load_cert_chain(places[f"{path}.certificate_file"], places.get(f"{path}.key_file"), password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"{path}.certificate_file: {' and '.join(map(str, files.values()))} are no certificate with its key",
            hint="both are PEM, the key belongs to the certificate (the first in the file), and is not encrypted",
        ) from error


def _unreadable(path: str, file: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: cannot read {file}: {error.strerror}", hint="check the path and that the relay's user may read the file"
    )
