"""The operator: kopf puts keys on a queue, a pure plan decides, the executor writes."""
