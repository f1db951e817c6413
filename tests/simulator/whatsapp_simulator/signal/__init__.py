"""Signal sessions as WhatsApp uses them: X3DH, the double ratchet, and the messages they travel in (version 3)."""
