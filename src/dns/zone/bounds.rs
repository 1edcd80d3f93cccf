//! How much a zone holds, and what has no name in it. Pure.

/// How much one tenant may have named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of all objects together, about.
    pub(crate) weight: usize,
    /// EndpointSlices of one Service.
    pub(crate) slices: usize,
    /// Endpoints of one Service, which a question may have to look at.
    pub(crate) endpoints: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // Ten thousand Services, Kubernetes' own threshold for a whole cluster, take 12 MiB with a slice of two
            // endpoints each. Sixty tenants at this bound would be needed to fill a replica of 1 GiB.
            weight: 16 << 20,
            // A controller fills slices with 100 endpoints each.
            slices: 256,
            // Twice what an answer of 64 KiB can hold, and both families of the 5000 pods of the largest Services.
            endpoints: 10_000,
        }
    }
}

/// A kind of object that the zone keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Services.
    Services = 0,
    /// EndpointSlices.
    Slices = 1,
}

/// Whether an object is in the zone now.
pub(crate) type Put = Result<(), Refusal>;

/// Why an object has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The tenant has as much as it may.
    ZoneFull,
    /// Its Service has as many slices or endpoints as it may.
    ServiceFull,
}

/// What a tenant wrote and has no name in its DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// Ports or endpoints of one object beyond their bound.
    Parts = 0,
    /// A name that DNS cannot have.
    Name = 1,
    /// An object that cannot be read.
    Unreadable = 2,
    /// Objects beyond the bound of the zone.
    Zone = 3,
    /// Slices and endpoints beyond the bound of their Service.
    Service = 4,
}

impl Unnamed {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Parts => "an object has more ports or endpoints than DNS names: those beyond the bound have no name",
            Self::Name => "an object has a name, or names a host or a port, that no DNS name can be made of",
            Self::Unreadable => "an object cannot be read and has no name in DNS",
            Self::Zone => "the tenant has more objects than DNS names: this one and others have no name",
            Self::Service => {
                "a Service has more endpoints or slices than DNS names: those beyond the bound have no name"
            }
        }
    }
}

impl From<Refusal> for Unnamed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ZoneFull => Self::Zone,
            Refusal::ServiceFull => Self::Service,
        }
    }
}
