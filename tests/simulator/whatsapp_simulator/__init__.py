"""A WhatsApp server and its phones, for tests and demonstrations.

It speaks the real multi-device protocol to an unmodified client: Noise XX over a WebSocket, binary nodes, linking by
QR or pairing code, Signal sessions. README.md beside this package documents the command line and the control API.

Cryptography, and why each part is where it is:

* XEdDSA: the `XEdDSA` package. One convention is WhatsApp's own (the Edwards sign bit travels in the signature), see
  `keys`.
* Double ratchet: the `DoubleRatchet` package, parametrised with Signal's constants and wire format, see
  `signal.ratchet`.
* X3DH: four lines of Diffie-Hellman in `signal.x3dh`. The `X3DH` package refuses signatures whose sign bit is set, as
  every second client's is, and knows prekeys only by value where the protocol names them by number.
* Noise XX: `noise`. WhatsApp leaves out the empty payload of the first message, which `noiseprotocol` (last release
  2020) and `dissononce` (2019) always hash, and neither is maintained.
* X25519, AES, HKDF, X.509: `cryptography`.
"""
