"""What the server does with each stanza of a logged-in companion: functions of (stanza, store, time)."""
