"""WhatsApp's binary XML: nodes, the token dictionary, and the codec between nodes and bytes."""
