//! How long a task works before others have their turn.
//!
//! All tenants share the runtime. A task that is always ready gives way only when tokio's budget for one poll (128 units)
//! is used up, and that counts operations, not what they cost. Here what was costly takes units of its own: after about a
//! millisecond of work a task gives way, whatever the work was.

/// Work for one unit, in records made: about 8 microseconds.
const WORK_PER_UNIT: usize = 16;

/// Pays for work that was just done: gives way when this turn's budget is used up.
pub(crate) async fn charge(work: usize) {
    for _ in 0..work.div_ceil(WORK_PER_UNIT) {
        tokio::task::coop::consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// On one thread, where nobody else runs while a task does not give way.
    #[tokio::test]
    async fn work_gives_way_and_rest_does_not() {
        let turns = Cell::new(0);
        let other = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let paid = async {
            charge(0).await;
            charge(100 * WORK_PER_UNIT).await;
            let before = turns.get();
            charge(1000 * WORK_PER_UNIT).await;
            (before, turns.get())
        };
        let (before, after) = tokio::select! {
            biased;
            turns = paid => turns,
            () = other => unreachable!("it has no end"),
        };
        assert_eq!(before, 0, "less than one turn's budget");
        assert!((7..=9).contains(&after), "1100 units are 8 budgets of 128: {after}");
    }
}
