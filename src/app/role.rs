//! What a process runs.

/// A part of Portico that a process can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// TLS gateway.
    Gateway,
    /// Tenant DNS.
    Dns,
    /// Syncer, under a Lease.
    Syncer,
    /// Operator, under a Lease.
    Operator,
}

impl Role {
    /// What a process runs that is told nothing else.
    pub(super) const ALL: [Self; 4] = [Self::Gateway, Self::Dns, Self::Syncer, Self::Operator];
}
