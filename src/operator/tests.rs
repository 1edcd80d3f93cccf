//! Rounds against a host in memory.
