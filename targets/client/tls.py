"""TLS over memory: ciphertext in, plaintext out, so that the socket's reads keep their kernel times. Sans-I/O."""

from __future__ import annotations

import ssl

PIECE = 1 << 16


def context(*, insecure: bool, ca_file: str | None) -> ssl.SSLContext:
    """A client's context: certificates are verified, against `ca_file` where one is given, unless `insecure`."""
    made = ssl.create_default_context(cafile=ca_file)
    if insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["http/1.1"])
    return made


class Tls:
    """One connection's TLS. What must be written to the socket is in `take()` after every call."""

    __slots__ = ("_incoming", "_object", "_outgoing", "closed", "ready")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ready = False  # the handshake is done
        self.closed = False  # the peer will send no more

    def shake(self) -> bool:
        """Goes on with the handshake; is it done? Raises ssl.SSLError."""
        try:
            self._object.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass
        return self.ready

    def encrypt(self, plain: bytes) -> None:
        self._object.write(plain)

    def decrypt(self, cipher: bytes) -> bytes:
        """The plaintext that `cipher` completes. Raises ssl.SSLError."""
        self._incoming.write(cipher)
        pieces: list[bytes] = []
        try:
            while True:
                piece = self._object.read(PIECE)
                if not piece:
                    self.closed = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def receive(self, cipher: bytes) -> None:
        """Ciphertext of the handshake."""
        self._incoming.write(cipher)

    def take(self) -> bytes:
        return self._outgoing.read()
