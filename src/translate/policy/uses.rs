//! What of the host a pod names: classes, schedulers, drivers, images. Each has a list in the policy.

use serde_json::Value;

use super::super::json;
use super::violation::Found;
use crate::config::PodSecurity;
use crate::crd::policy::GrantedPolicy;

/// Kinds of volumes that nodes mount from the network at the pod's word.
const NETWORK_VOLUMES: &[&str] = &["nfs", "iscsi", "rbd", "cephfs", "glusterfs", "azureFile"];

/// Everything but images.
pub(super) fn of_pod(pod: &Value, policy: &GrantedPolicy, found: &mut Found) {
    let (runtime, scheduler) = (json::text(pod, "/spec/runtimeClassName"), json::text(pod, "/spec/schedulerName"));
    let rule = "names a class that is not allowed";
    let fine = runtime.is_empty() || policy.runtime_class(runtime);
    found.unless_by("runtimeClasses", fine, "spec.runtimeClassName".to_owned(), rule);
    let rule = "names a scheduler that is not allowed";
    found.unless_by("schedulers", policy.scheduler(scheduler), "spec.schedulerName".to_owned(), rule);
    if policy.pod_security() == PodSecurity::Privileged {
        return;
    }
    for (index, volume) in json::items(pod, "/spec/volumes").iter().enumerate() {
        let driver = !json::has(volume, "/csi") || policy.csi_driver(json::text(volume, "/csi/driver"));
        found.unless_by("csiDrivers", driver, format!("spec.volumes[{index}].csi.driver"), "is not allowed");
        for kind in NETWORK_VOLUMES.iter().filter(|kind| json::has(volume, &format!("/{kind}"))) {
            let (field, rule) = (format!("spec.volumes[{index}].{kind}"), "is a kind of volume that is not allowed");
            found.unless_by("networkVolumes", policy.network_volume(kind), field, rule);
        }
    }
}

/// The image of one container, which is at this field.
pub(super) fn image(container: &Value, field: &str, policy: &GrantedPolicy, found: &mut Found) {
    let image = json::text(container, "/image");
    let rule = "is not one of the images that are allowed";
    found.unless_by("images", policy.image(image), format!("{field}.image"), rule);
    let by_digest = !policy.image_digests() || image.contains("@sha256:") || image.contains("@sha512:");
    found.unless_by("imageDigests", by_digest, format!("{field}.image"), "must be named by digest");
}
