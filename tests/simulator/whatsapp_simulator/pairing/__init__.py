"""Linking a companion to a phone: what the QR text holds, the account's signatures, and the pairing code."""
