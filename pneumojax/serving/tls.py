"""TLS contexts from the files that the settings name."""

import ssl

from pneumojax.errors import UsageError
from pneumojax.serving.settings import Tls


def server(tls: Tls | None) -> ssl.SSLContext | None:
    """For a server; where `ca` is given, clients must show a certificate that it signed."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls)
    if tls.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client(tls: Tls | None) -> ssl.SSLContext | None:
    """For a client, which always checks the server's certificate and name."""
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
        if tls.certificate:
            # Without a password the library would ask for one on the terminal.
            context.load_cert_chain(tls.certificate, tls.key, password='')
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f'--node: the TLS files {tls.ca}, {tls.certificate}, {tls.key} cannot be used '
            f'({type(error).__name__}); expected PEM, and a key without a password that belongs '
            'to the certificate'
        ) from None
