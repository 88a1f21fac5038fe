//! Leases: who holds what, for how long.

use std::sync::Arc;
use std::time::Duration;

use super::scene::{Scene, WRITERS, process_id};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::ProcessId;
use crate::store::{Lease, LeaseClaim, Stamped};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(of_many_who_claim_a_lease_one_holds_it shows "S22"),
        case!(a_holder_renews_its_lease_and_keeps_its_epoch shows "S22"),
        case!(a_lease_given_back_goes_to_the_next_with_a_higher_epoch shows "S22"),
        case!(a_lease_that_expired_has_a_higher_epoch_even_for_who_held_it shows "S22"),
        case!(a_lease_is_given_back_by_its_holder_alone shows "S22"),
        case!(leases_are_listed_by_the_beginning_of_their_keys shows "S16", "S22"),
    ]
}

const HOUR: Duration = Duration::from_secs(3600);

fn claim(key: &str, holder: ProcessId, ttl: Duration) -> LeaseClaim {
    LeaseClaim { key: key.into(), holder, ttl }
}

async fn ask(scene: &Scene, claim: &LeaseClaim) -> Stamped<Lease> {
    scene.store.claim(claim).await.expect("the store answers")
}

async fn of_many_who_claim_a_lease_one_holds_it(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let mut epoch = 0;
    for _ in 0..6 {
        let results = scene
            .at_once(|_, store| async move {
                let own = process_id();
                let lease = store.claim(&claim("shard/1", own, HOUR)).await.expect("the store answers").value;
                (own, lease)
            })
            .await;
        let held = results[0].1.clone();
        assert!(results.iter().all(|(_, lease)| *lease == held), "all are told the same: {results:?}");
        assert_eq!(results.iter().filter(|(own, _)| *own == held.holder).count(), 1, "and one of them holds it");
        assert!(held.epoch > epoch, "{} after {epoch}", held.epoch);
        epoch = held.epoch;
        ask(&scene, &claim("shard/1", held.holder, Duration::ZERO)).await;
    }
}

async fn a_holder_renews_its_lease_and_keeps_its_epoch(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let own = process_id();
    let first = ask(&scene, &claim("k", own, HOUR)).await.value;
    let longer = ask(&scene, &claim("k", own, 2 * HOUR)).await;
    assert!(longer.value.expires > first.expires);
    assert_eq!(longer.value, Lease { expires: longer.value.expires, ..first.clone() });
    let shorter = ask(&scene, &claim("k", own, HOUR)).await.value;
    assert!(shorter.expires < longer.value.expires, "a renewal counts from now");
    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.store.leases("k").await.expect("the store answers").value, [shorter]);
    let other = ask(&scene, &claim("k", process_id(), HOUR)).await.value;
    assert_eq!((other.holder, other.epoch), (own, first.epoch), "another is told who holds it");
}

async fn a_lease_given_back_goes_to_the_next_with_a_higher_epoch(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let mut before = 0;
    for _ in 0..WRITERS {
        let own = process_id();
        let held = ask(&scene, &claim("k", own, HOUR)).await.value;
        assert_eq!(held.holder, own);
        assert!(held.epoch > before, "{} after {before}", held.epoch);
        before = held.epoch;
        let back = ask(&scene, &claim("k", own, Duration::ZERO)).await;
        assert!(back.value.expires <= back.now, "it is free at once");
        assert_eq!(scene.store.leases("k").await.expect("the store answers").value, []);
    }
}

async fn a_lease_that_expired_has_a_higher_epoch_even_for_who_held_it(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let own = process_id();
    let first = ask(&scene, &claim("k", own, HOUR)).await.value;
    ask(&scene, &claim("k", own, Duration::ZERO)).await;
    let second = ask(&scene, &claim("k", own, HOUR)).await;
    assert!(second.value.epoch > first.epoch);
    assert!(second.value.since >= first.since && second.value.since <= second.now);
}

async fn a_lease_is_given_back_by_its_holder_alone(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let own = process_id();
    let held = ask(&scene, &claim("k", own, HOUR)).await.value;
    let other = ask(&scene, &claim("k", process_id(), Duration::ZERO)).await.value;
    assert_eq!(other, held);
    assert_eq!(scene.store.leases("k").await.expect("the store answers").value, [held]);
}

async fn leases_are_listed_by_the_beginning_of_their_keys(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let keys = ["server/a", "server/b", "server_/c", "serverX/d", "Server/e", "shard/1", "shard/10", "100%", "100"];
    for key in keys {
        ask(&scene, &claim(key, process_id(), HOUR)).await;
    }
    let own = process_id();
    ask(&scene, &claim("server/gone", own, HOUR)).await;
    ask(&scene, &claim("server/gone", own, Duration::ZERO)).await;
    for prefix in ["server/", "server_", "server", "Server", "shard/1", "100%", "", "none", "%", "_"] {
        let listed = scene.store.leases(prefix).await.expect("the store answers").value;
        let mut found: Vec<_> = listed.iter().map(|lease| lease.key.as_str()).collect();
        found.sort_unstable();
        let mut expected: Vec<_> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{prefix:?}");
    }
}
