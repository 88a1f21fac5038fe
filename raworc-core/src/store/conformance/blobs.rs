//! Blobs: content by its hash.

use std::sync::Arc;

use bytes::Bytes;

use super::scene::{WRITERS, tenant};
use super::{BlobCase, BlobStoreUnderTest, case};
use crate::blob::BlobId;

pub(super) fn cases() -> Vec<BlobCase> {
    vec![
        case!(what_was_put_is_read_back_byte_for_byte shows "B1"),
        case!(content_put_again_is_one_blob shows "B2"),
        case!(content_put_by_many_at_once_is_one_blob shows "B2", "B1"),
        case!(a_range_reads_the_bytes_that_it_names shows "B3"),
        case!(a_blob_of_another_tenant_is_not_there shows "B4"),
        case!(unlinking_forgets_a_blob_and_what_is_not_there_is_no_error shows "B4", "B5"),
    ]
}

/// Bytes of every value, so many of them; no two sizes begin alike.
fn content(size: usize) -> Bytes {
    (0..size).map(|n| (n.wrapping_mul(31) ^ (n >> 8) ^ size) as u8).collect()
}

async fn what_was_put_is_read_back_byte_for_byte(subject: Arc<dyn BlobStoreUnderTest>) {
    let store = subject.open().await;
    let ours = tenant("ours");
    // Around the sizes at which a store may cut a blob into chunks.
    for size in [0, 1, 4095, 4096, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000] {
        let content = content(size);
        let id = store.put(&ours, content.clone()).await.expect("the store answers");
        assert_eq!(id, BlobId::of(&content), "{size} bytes");
        let found = store.get(&ours, id, None).await.expect("the store answers");
        assert!(found.as_ref() == Some(&content), "{size} bytes come back");
    }
}

async fn content_put_again_is_one_blob(subject: Arc<dyn BlobStoreUnderTest>) {
    let store = subject.open().await;
    let ours = tenant("ours");
    let content = content(200_000);
    let first = store.put(&ours, content.clone()).await.expect("the store answers");
    let second = store.put(&ours, content.clone()).await.expect("the store answers");
    assert_eq!(first, second);
    assert!(store.get(&ours, first, None).await.expect("the store answers") == Some(content));
    store.unlink(&ours, first).await.expect("the store answers");
    assert_eq!(store.get(&ours, first, None).await.expect("the store answers"), None, "it was one blob");
}

async fn content_put_by_many_at_once_is_one_blob(subject: Arc<dyn BlobStoreUnderTest>) {
    let store = subject.open().await;
    let content = content(300_000);
    let puts: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, content) = (Arc::clone(&store), content.clone());
            tokio::spawn(async move {
                let id = store.put(&tenant("ours"), content).await.expect("the store answers");
                (id, store.get(&tenant("ours"), id, None).await.expect("the store answers"))
            })
        })
        .collect();
    for put in puts {
        let (id, found) = put.await.expect("no writer panics");
        assert_eq!(id, BlobId::of(&content));
        assert!(found.as_ref() == Some(&content), "it is whole once its put has returned");
    }
}

async fn a_range_reads_the_bytes_that_it_names(subject: Arc<dyn BlobStoreUnderTest>) {
    let store = subject.open().await;
    let ours = tenant("ours");
    let content = content(300_000);
    let id = store.put(&ours, content.clone()).await.expect("the store answers");
    let size = content.len() as u64;
    let edges = [0, 1, 4096, 65_535, 65_536, 65_537, 131_072, 299_999, 300_000, 300_001, 1 << 40, u64::MAX];
    for start in edges {
        for end in edges.into_iter().filter(|end| *end >= start) {
            let found = store.get(&ours, id, Some(start..end)).await.expect("the store answers");
            let (from, to) = (start.min(size) as usize, end.min(size) as usize);
            assert!(found == Some(content.slice(from..to)), "bytes {start}..{end}");
        }
    }
    let nothing = store.put(&ours, Bytes::new()).await.expect("the store answers");
    let found = store.get(&ours, nothing, Some(0..10)).await.expect("the store answers");
    assert_eq!(found, Some(Bytes::new()), "an empty blob is there");
}

async fn a_blob_of_another_tenant_is_not_there(subject: Arc<dyn BlobStoreUnderTest>) {
    let store = subject.open().await;
    let (ours, theirs) = (tenant("acme"), tenant("acme-2"));
    let content = content(1000);
    let id = store.put(&ours, content.clone()).await.expect("the store answers");
    assert_eq!(store.get(&theirs, id, None).await.expect("the store answers"), None);
    assert_eq!(store.get(&theirs, id, Some(0..10)).await.expect("the store answers"), None);
    let unknown = BlobId::of(b"never put");
    assert_eq!(store.get(&ours, unknown, None).await.expect("the store answers"), None);
    assert_eq!(store.get(&ours, unknown, Some(0..0)).await.expect("the store answers"), None);
    // Each has its own: what one forgets, the other keeps.
    store.put(&theirs, content.clone()).await.expect("the store answers");
    store.unlink(&ours, id).await.expect("the store answers");
    assert_eq!(store.get(&ours, id, None).await.expect("the store answers"), None);
    assert!(store.get(&theirs, id, None).await.expect("the store answers") == Some(content));
}

async fn unlinking_forgets_a_blob_and_what_is_not_there_is_no_error(subject: Arc<dyn BlobStoreUnderTest>) {
    let store = subject.open().await;
    let ours = tenant("ours");
    let id = store.put(&ours, content(70_000)).await.expect("the store answers");
    let other = store.put(&ours, content(70_001)).await.expect("the store answers");
    for _ in 0..3 {
        store.unlink(&ours, id).await.expect("what is not there is no error");
        assert_eq!(store.get(&ours, id, None).await.expect("the store answers"), None);
    }
    assert!(store.get(&ours, other, None).await.expect("the store answers") == Some(content(70_001)));
    let again = store.put(&ours, content(70_000)).await.expect("the store answers");
    assert!(store.get(&ours, again, None).await.expect("the store answers") == Some(content(70_000)));
}
