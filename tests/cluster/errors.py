class ClusterError(Exception):
    """Something the person at the keyboard can read and act on."""
