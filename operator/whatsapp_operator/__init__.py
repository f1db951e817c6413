"""A Kubernetes operator for WhatsApp sessions."""
