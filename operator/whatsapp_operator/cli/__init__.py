"""`kubectl wa`: pair phones and look after sessions from a terminal. Reads the API server only."""
