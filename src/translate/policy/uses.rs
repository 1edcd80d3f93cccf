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
    found.1 = "runtimeClasses";
    let fine = runtime.is_empty() || policy.runtime_class(runtime);
    found.unless(fine, "spec.runtimeClassName".to_owned(), "names a class that is not allowed");
    found.1 = "schedulers";
    found.unless(policy.scheduler(scheduler), "spec.schedulerName".to_owned(), "names a scheduler that is not allowed");
    if policy.pod_security() == PodSecurity::Privileged {
        return;
    }
    for (index, volume) in json::items(pod, "/spec/volumes").iter().enumerate() {
        found.1 = "csiDrivers";
        let driver = !json::has(volume, "/csi") || policy.csi_driver(json::text(volume, "/csi/driver"));
        found.unless(driver, format!("spec.volumes[{index}].csi.driver"), "is not allowed");
        found.1 = "networkVolumes";
        for kind in NETWORK_VOLUMES.iter().filter(|kind| json::has(volume, &format!("/{kind}"))) {
            let field = format!("spec.volumes[{index}].{kind}");
            found.unless(policy.network_volume(kind), field, "is a kind of volume that is not allowed");
        }
    }
}

/// The image of one container, which is at this field.
pub(super) fn image(container: &Value, field: &str, policy: &GrantedPolicy, found: &mut Found) {
    let image = json::text(container, "/image");
    found.1 = "images";
    found.unless(policy.image(image), format!("{field}.image"), "is not one of the images that are allowed");
    found.1 = "imageDigests";
    let by_digest = !policy.image_digests() || image.contains("@sha256:") || image.contains("@sha512:");
    found.unless(by_digest, format!("{field}.image"), "must be named by digest");
}
