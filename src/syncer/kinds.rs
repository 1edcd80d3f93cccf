//! The kinds that are synced, one file each, and what they share.
