//! [`Waits`]: one of those that wait, in a gauge.

/// One of those that wait, until it is dropped: whoever gives up waits no more.
#[derive(Debug)]
pub(super) struct Waits(&'static str);

impl Waits {
    pub(super) fn begin(gauge: &'static str) -> Self {
        metrics::gauge!(gauge).increment(1.0);
        Self(gauge)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
