"""The config table, its version chain and the state machine that keeps them."""
