//! Pure: networks without others, as a NetworkPolicy says it.

use ipnet::IpNet;
use serde_json::{Value, json};

/// So many exceptions stand in one `ipBlock` at most, of each family: every policy of every virtual cluster carries them.
const MOST: usize = 128;
/// Where pods' addresses are as a rule, in a network that is nobody's but its owner's.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// All private networks.
pub(super) fn private() -> Vec<IpNet> {
    PRIVATE.iter().filter_map(|text| text.parse().ok()).collect()
}

/// `open` without `closed`, as peers. An exception must lie within its block, and be less than it.
pub(super) fn blocks(open: &[IpNet], closed: &[IpNet]) -> Vec<Value> {
    let closed = bounded(closed);
    let open = IpNet::aggregate(&open.iter().map(IpNet::trunc).collect());
    open.iter()
        .filter(|network| !closed.iter().any(|part| part.contains(*network)))
        .map(|network| {
            let mut block = json!({"cidr": network.to_string()});
            let except: Vec<String> =
                closed.iter().filter(|part| network.contains(*part)).map(IpNet::to_string).collect();
            if !except.is_empty() {
                block["except"] = json!(except);
            }
            json!({"ipBlock": block})
        })
        .collect()
}

/// The same networks in as few words as there are, and wider ones where there are too many: what is closed may become more,
/// never less.
fn bounded(networks: &[IpNet]) -> Vec<IpNet> {
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
        networks.iter().map(IpNet::trunc).partition(|network| network.addr().is_ipv4());
    [widened(&v4), widened(&v6)].concat()
}

fn widened(networks: &[IpNet]) -> Vec<IpNet> {
    let mut all = IpNet::aggregate(&networks.to_vec());
    while all.len() > MOST {
        let longest = all.iter().map(IpNet::prefix_len).max().unwrap_or_default();
        let widen = |network: &IpNet| if network.prefix_len() == longest { network.supernet() } else { None };
        all = IpNet::aggregate(&all.iter().map(|network| widen(network).unwrap_or(*network)).collect());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("network")).collect()
    }

    #[test]
    fn exceptions_are_real_parts_of_their_block_and_of_its_family() {
        let all = nets(&["0.0.0.0/0", "::/0"]);
        let closed = nets(&["10.244.1.0/24", "10.244.0.0/24", "fd00::/64", "10.244.0.9/32"]);
        assert_eq!(
            blocks(&all, &closed),
            [
                json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/23"]}}),
                json!({"ipBlock": {"cidr": "::/0", "except": ["fd00::/64"]}}),
            ]
        );
        assert_eq!(blocks(&nets(&["192.0.2.0/24"]), &closed), [json!({"ipBlock": {"cidr": "192.0.2.0/24"}})]);
        for swallowed in ["10.244.0.0/24", "10.244.0.7/32", "10.244.0.0/23"] {
            assert!(blocks(&nets(&[swallowed]), &closed).is_empty(), "{swallowed}: nothing is left of it");
        }
        assert!(blocks(&[], &closed).is_empty());
    }

    #[test]
    fn many_networks_become_few_that_hold_all_of_them() {
        let many: Vec<IpNet> =
            (0..2000_u32).map(|i| format!("10.{}.{}.0/26", i / 200, i % 200).parse().expect("network")).collect();
        let few = bounded(&many);
        assert!(few.len() <= MOST, "{}", few.len());
        assert!(many.iter().all(|network| few.iter().any(|wide| wide.contains(network))));
        assert!(few.iter().all(|wide| wide.prefix_len() >= 8), "{few:?}");
        assert_eq!(private().len(), PRIVATE.len(), "each can be read");
    }
}
