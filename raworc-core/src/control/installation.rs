//! What an installation is called where engines have computers of several.

use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use crate::error::Error;
use crate::store::{Change, Commit, RecordChange, RecordCheck, RecordKey, RecordKind, Store, StoreError};

/// The name that all processes on this store have in common: the first that was proposed.
///
/// # Errors
/// Where the store does not answer.
pub async fn installation_name(store: &dyn Store, proposed: &str) -> Result<String, Error> {
    let key = RecordKey { kind: RecordKind::Setting, tenant: None, name: "installation".into() };
    if store.record(&key).await?.is_none() {
        let change =
            RecordChange { key: key.clone(), when: RecordCheck::Absent, body: Some(proposed.into()), ttl: None };
        let commit = Commit::new(SystemEntropy.commit_id(SystemClock.now()), vec![Change::Record(change)]);
        match store.commit(commit).await {
            // Another process may have been quicker: then its name is the name.
            Ok(_) | Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let kept = store.record(&key).await?.and_then(|record| record.body.as_str().map(str::to_owned));
    kept.ok_or_else(|| Error::Internal("the installation's name was not kept".into()))
}
