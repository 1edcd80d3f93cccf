//! `$(NAME)` in environments, commands and arguments. Portico hands it on as it is; the host's kubelet expands it, each
//! variable from the expanded ones before it, so that a few that name each other twice would fill a node's memory.
//!
//! Promises: lengths are computed, nothing is expanded; the work is linear in the size of the pod.

use std::collections::HashMap;

use serde_json::Value;

use super::super::bounds::{self, Excess};
use super::super::json;

/// What a variable counts as whose value is not in the pod: it comes from a Secret, a ConfigMap, a field or a Service.
const UNKNOWN: usize = 1024;

/// The container whose expansion is too long, all before it counted in.
pub(super) fn excess(pod: &Value) -> Option<Excess> {
    let mut total = 0_usize;
    for list in ["initContainers", "containers"] {
        for (index, container) in json::items(pod, &format!("/spec/{list}")).iter().enumerate() {
            total = total.saturating_add(of_container(container));
            let field = format!("spec.{list}[{index}]");
            let what = "bytes of env, command and args with each `$(NAME)` expanded";
            let advice = "refer to fewer variables in others";
            let excess = Excess::beyond(&field, what, (total, bounds::EXPANDED_BYTES), advice);
            if excess.is_some() {
                return excess;
            }
        }
    }
    None
}

/// Bytes of one container's env, command and args, expanded.
pub(super) fn of_container(container: &Value) -> usize {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut total = 0_usize;
    for variable in json::items(container, "/env") {
        let literal = variable.get("value").and_then(Value::as_str);
        let length = match literal {
            Some(text) => expanded(text, &known),
            None if json::has(variable, "/valueFrom") => UNKNOWN,
            None => 0,
        };
        known.insert(json::text(variable, "/name"), length);
        total = total.saturating_add(length);
    }
    let words = ["/command", "/args"].into_iter().flat_map(|list| json::items(container, list));
    words.filter_map(Value::as_str).fold(total, |total, word| total.saturating_add(expanded(word, &known)))
}

/// The length of a text as a kubelet expands it: `$$` is `$`, what is no reference stays.
fn expanded(text: &str, known: &HashMap<&str, usize>) -> usize {
    let (mut total, mut rest) = (0_usize, text);
    while let Some((before, after)) = rest.split_once('$') {
        total = total.saturating_add(before.len());
        if let Some(after) = after.strip_prefix('$') {
            (total, rest) = (total.saturating_add(1), after);
        } else if let Some(inside) = after.strip_prefix('(') {
            // Without an end here there is none further on either.
            let Some((name, after)) = inside.split_once(')') else { return total.saturating_add(inside.len() + 2) };
            let as_it_is = name.len() + 3;
            let length = known.get(name).copied();
            let length = length.unwrap_or(if is_name(name) { UNKNOWN.max(as_it_is) } else { as_it_is });
            (total, rest) = (total.saturating_add(length), after);
        } else {
            (total, rest) = (total.saturating_add(1), after);
        }
    }
    total.saturating_add(rest.len())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_a_kubelets() {
        let known = HashMap::from([("A", 10), ("B", 0)]);
        for (text, length) in [
            ("", 0),
            ("plain", 5),
            ("$(A)", 10),
            ("x$(A)$(B)y", 12),
            ("$$(A)", 4),
            ("$$$(A)", 11),
            ("$A $", 4),
            ("$(A", 3),
            ("$(echo a)", 9),
            ("$(C)", UNKNOWN),
            ("$()", 3),
            ("é$(A)", 12),
        ] {
            assert_eq!(expanded(text, &known), length, "{text}");
        }
    }

    #[test]
    fn an_unclosed_reference_costs_no_more_than_its_length() {
        // Looked for from each one, the end that never comes would cost the square of this.
        let text = "$(".repeat(2_000_000);
        assert_eq!(expanded(&text, &HashMap::new()), text.len());
    }
}
