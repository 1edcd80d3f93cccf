//! Every family that a page of virtual clusters may have beside Portico's own, for the list of all.

use super::catalog::{CLUSTER, Catalog, Head, NAMESPACE};
use super::{pods, shown};
use crate::config::ScrapeConfig;

/// Name, type, help and labels of each: those of the page, and its own.
pub(crate) fn families() -> Vec<[String; 4]> {
    let all = with_labels().into_iter();
    all.map(|(head, labels)| [head.name, head.kind, head.help, format!("`{}`", labels.join("`; `"))]).collect()
}

fn with_labels() -> Vec<(Head, Vec<String>)> {
    let of_the_page = |own: &[&str]| [&[NAMESPACE, CLUSTER], own].concat().iter().map(ToString::to_string).collect();
    let about = shown::about().map(|head| {
        let own: &[&str] = if head.name.ends_with("_problem") { &["reason"] } else { &[] };
        let labels = of_the_page(own);
        (head, labels)
    });
    let used = pods::heads().map(|head| {
        let own: &[&str] = if head.name.starts_with("portico_pod_") { &["exported_namespace", "pod"] } else { &[] };
        let labels = of_the_page(own);
        (head, labels)
    });
    let catalog = Catalog::new(&ScrapeConfig::default());
    let labels = |at: usize| {
        let taken = catalog.family(u16::try_from(at).expect("few")).expect("its head is there");
        of_the_page(&taken.labels.iter().map(|(_, shown)| shown.as_str()).collect::<Vec<_>>())
    };
    let of_servers: Vec<_> = catalog.heads().enumerate().map(|(at, head)| (head, labels(at))).collect();
    about.chain(used).chain(of_servers).collect()
}
