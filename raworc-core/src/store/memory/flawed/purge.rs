//! Purges with a flaw.

use std::time::Duration;

use super::{Flaw, Flawed};
use crate::store::{Purge, Purged, Retention, Store, StoreError};

impl Flawed {
    pub(super) async fn flawed_purge(&self, mut purge: Purge) -> Result<Purged, StoreError> {
        if self.is(Flaw::PurgeTakesWhatIsYoung) {
            purge.retention = Retention::of(Duration::ZERO);
        }
        if self.is(Flaw::PurgeForgetsComputers) {
            self.inner.lock().0.lose_computers();
        }
        if self.is(Flaw::PurgeIgnoresTheLimit) {
            purge.limit = usize::MAX;
        }
        let purged = self.inner.purge(&purge).await?;
        if self.is(Flaw::PurgeTakesWhatIsOpen) {
            self.inner.lock().0.lose_open_messages();
        }
        if self.is(Flaw::PurgeForgetsReferences) && purged.rows.blobs > 0 {
            self.inner.lock().0.lose_blobs();
        }
        if self.is(Flaw::PurgeReusesNumbers) {
            self.inner.lock().0.count_anew();
        }
        Ok(purged)
    }
}
