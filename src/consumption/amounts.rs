//! One row's amounts.

/// What was used. All of them only grow, so that parts add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Time of pods on nodes, milliseconds.
    pub pods: u64,
    /// Time of processor cores, milliseconds.
    pub cpu: u64,
    /// Working set over time, mebibyte seconds.
    pub memory: u64,
    /// Capacity of bound claims over time, mebibyte seconds.
    pub volumes: u64,
    /// Bytes that pods received.
    pub received: u64,
    /// Bytes that pods sent.
    pub sent: u64,
    /// Calls of the API by callers whom it knows.
    pub calls: u64,
    /// Bytes of these calls, both ways.
    pub call_bytes: u64,
    /// Bytes of exec, attach, port-forward, logs and proxies, both ways.
    pub stream_bytes: u64,
    /// Readings that failed: more was used than is counted.
    pub missed: u64,
}

/// Numbers of one row.
pub(super) const NUMBERS: usize = 10;

impl Amounts {
    /// All of them, in the order in which they are written.
    pub(super) fn numbers(&self) -> [u64; NUMBERS] {
        let Self { pods, cpu, memory, volumes, received, sent, calls, call_bytes, stream_bytes, missed } = *self;
        [pods, cpu, memory, volumes, received, sent, calls, call_bytes, stream_bytes, missed]
    }

    pub(super) fn of(numbers: [u64; NUMBERS]) -> Self {
        let [pods, cpu, memory, volumes, received, sent, calls, call_bytes, stream_bytes, missed] = numbers;
        Self { pods, cpu, memory, volumes, received, sent, calls, call_bytes, stream_bytes, missed }
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        *self = self.each(others, u64::saturating_add);
    }

    /// What of these is not in `others`.
    pub(super) fn without(&self, others: &Self) -> Self {
        self.each(others, u64::saturating_sub)
    }

    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing is in them but what callers chose: calls, of any namespace that they can name.
    pub(super) fn is_calls_alone(&self) -> bool {
        let Self { calls, call_bytes, stream_bytes, .. } = *self;
        *self == Self { calls, call_bytes, stream_bytes, ..Self::default() }
    }

    fn each(&self, others: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let (own, others) = (self.numbers(), others.numbers());
        Self::of(std::array::from_fn(|at| with(own[at], others[at])))
    }
}
