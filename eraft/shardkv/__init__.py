"""Commands, buckets, expiry and routing decisions of a data group."""
