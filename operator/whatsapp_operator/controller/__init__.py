"""The operator: watches put keys on a queue, a pure plan decides, the executor writes."""
