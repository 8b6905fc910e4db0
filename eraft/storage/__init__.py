"""What is on disk: the write-ahead log, the state store and the node's identity."""
