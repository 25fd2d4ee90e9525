//! The metric of a network's default routes under netavark.

/// What a default route has under netavark whose network says no metric (`DEFAULT_METRIC` of its constants).
pub(crate) const DEFAULT: u32 = 100;

/// The metric of a network's default routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultMetric {
    /// What the routes have where no other network's are there.
    pub(crate) base: u32,
    /// Whether the network says it: then it only gives way to one that says the same.
    pub(crate) is_said: bool,
}
