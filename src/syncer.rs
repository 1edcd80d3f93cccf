//! The syncer: copies what must run from every tenant to the host, and statuses back.
//!
//! A pod's way, top-down: `source` (watch → event) → `cache` (projected) → `queue` (fair, keyed) → `worker` (load,
//! `kinds/*` plan, `apply`) and back. `drift` compares both sides continuously. Kinds are pure functions behind
//! [`kind::ResourceSyncer`]; only the engine does IO. All state is rebuilt from the two API servers.

pub mod kind;
pub mod kinds;
