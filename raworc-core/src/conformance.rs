//! The suites that every store and every runtime passes, whoever wrote it.
//!
//! Each sentence of a contract has an id (`S1`, `R1`, `B1`); each case names the ids that it shows. A backend of your own
//! runs the same list: give each [`Case`] a fresh subject and await it; it panics with a sentence where the contract
//! is broken.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

/// One case of a suite, for subjects of the kind `T`.
pub struct Case<T: ?Sized> {
    /// The sentences of the contract that it shows.
    pub shows: &'static [&'static str],
    /// Its name, a sentence in snake case.
    pub name: &'static str,
    run: fn(Arc<T>) -> BoxFuture<'static, ()>,
}

impl<T: ?Sized> Case<T> {
    pub(crate) const fn new(
        shows: &'static [&'static str],
        name: &'static str,
        run: fn(Arc<T>) -> BoxFuture<'static, ()>,
    ) -> Self {
        Self { shows, name, run }
    }

    /// Runs the case.
    ///
    /// # Panics
    /// Where the subject breaks the contract.
    pub async fn run(&self, subject: Arc<T>) {
        (self.run)(subject).await;
    }
}

impl<T: ?Sized> fmt::Debug for Case<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("shows", &self.shows).field("name", &self.name).finish_non_exhaustive()
    }
}
