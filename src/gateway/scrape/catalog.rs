//! The families of a page: which samples of an API server's text are of one, which labels and buckets of it stay.
//!
//! Promises: made of the configuration alone, so no tenant decides what a family is called, of which type it is or where it
//! stands. Pure.

use std::collections::HashMap;

use crate::config::{Family, FamilyKind, ScrapeConfig};

/// What stands above a family's samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) kind: String,
    /// Empty: none.
    pub(super) help: String,
}

/// Which number of a group of series a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Of a counter or gauge, the only one.
    Value,
    Bucket,
    Sum,
    Count,
}

/// All families of API servers, by their place on the page.
#[derive(Debug)]
pub(super) struct Catalog {
    families: Vec<Taken>,
    samples: HashMap<Box<[u8]>, (u16, Part)>,
}

/// One family of theirs.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) name: String,
    pub(super) family: Family,
    /// Labels that stay, each with the name under which it is shown.
    pub(super) labels: Vec<(String, String)>,
}

/// What every series has of Portico.
pub(super) const NAMESPACE: &str = "namespace";
pub(super) const CLUSTER: &str = "virtualcluster";

impl Catalog {
    pub(super) fn new(config: &ScrapeConfig) -> Self {
        let families: Vec<Taken> = config.families.iter().map(|(name, family)| Taken::new(name, family)).collect();
        let mut samples = HashMap::new();
        for (at, taken) in (0..).zip(&families) {
            let parts: &[Part] = match taken.family.kind {
                FamilyKind::Counter | FamilyKind::Gauge => &[Part::Value],
                FamilyKind::Histogram => &[Part::Bucket, Part::Sum, Part::Count],
            };
            for (name, part) in taken.family.samples(&taken.name).into_iter().zip(parts) {
                samples.insert(name.into_bytes().into_boxed_slice(), (at, *part));
            }
        }
        Self { families, samples }
    }

    /// Of which family a sample of this name is.
    pub(super) fn sample(&self, name: &[u8]) -> Option<(u16, Part)> {
        self.samples.get(name).copied()
    }

    pub(super) fn family(&self, at: u16) -> Option<&Taken> {
        self.families.get(usize::from(at))
    }

    pub(super) fn len(&self) -> usize {
        self.families.len()
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = Head> {
        self.families.iter().map(|taken| Head {
            name: taken.name.clone(),
            kind: taken.family.kind.name().to_owned(),
            help: String::new(),
        })
    }
}

impl Taken {
    fn new(name: &str, family: &Family) -> Self {
        let shown = |label: &String| match label.as_str() {
            // As Prometheus names what a target says of itself in the words of whoever scrapes it.
            NAMESPACE | CLUSTER => format!("exported_{label}"),
            _ => label.clone(),
        };
        let labels = family.by.iter().map(|label| (label.clone(), shown(label))).collect();
        Self { name: name.to_owned(), family: family.clone(), labels }
    }

    /// Numbers of one group: a value; or buckets, that of all, sum and count.
    pub(super) fn width(&self) -> usize {
        match self.family.kind {
            FamilyKind::Counter | FamilyKind::Gauge => 1,
            FamilyKind::Histogram => self.family.at.len() + 3,
        }
    }

    /// The bucket of this upper bound, if it is one that stays. API servers compute some bounds, and write what they got.
    pub(super) fn bucket(&self, bound: f64) -> Option<usize> {
        if bound == f64::INFINITY {
            return Some(self.family.at.len());
        }
        self.family.at.iter().position(|known| (known - bound).abs() <= known.abs() * 1e-9)
    }
}
