//! Records: small documents with a version.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::scene::{Scene, commit_id, conflict, tenant};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::TenantName;
use crate::store::{Change, Commit, Conflict, RecordChange, RecordCheck, RecordKey, RecordKind};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(a_record_changes_against_the_version_that_the_writer_saw shows "S23"),
        case!(of_many_who_saw_the_same_version_one_changes_the_record shows "S23"),
        case!(records_of_one_kind_and_tenant_are_listed_by_name shows "S14", "S16"),
        case!(a_record_is_gone_after_its_time shows "S23", "S16"),
    ]
}

fn key(kind: RecordKind, tenant: Option<&TenantName>, name: &str) -> RecordKey {
    RecordKey { kind, tenant: tenant.cloned(), name: name.into() }
}

fn setting(name: &str) -> RecordKey {
    key(RecordKind::Setting, None, name)
}

fn write(key: RecordKey, when: RecordCheck, body: Option<serde_json::Value>) -> Commit {
    Commit::new(commit_id(), vec![Change::Record(RecordChange { key, when, body, ttl: None })])
}

async fn a_record_changes_against_the_version_that_the_writer_saw(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let put = |when, body| scene.store.commit(write(setting("motd"), when, body));
    let stale = |found| Conflict::Record { kind: "setting", name: "motd".into(), found };
    assert_eq!(conflict(put(RecordCheck::Version(1), Some(json!(0))).await), stale(0));
    put(RecordCheck::Absent, Some(json!({ "text": "one" }))).await.expect("it is not there");
    assert_eq!(conflict(put(RecordCheck::Absent, Some(json!(0))).await), stale(1));
    put(RecordCheck::Version(1), Some(json!({ "text": "two" }))).await.expect("that version is there");
    assert_eq!(conflict(put(RecordCheck::Version(1), None).await), stale(2));
    let found = scene.store.record(&setting("motd")).await.expect("the store answers").expect("it is there");
    assert_eq!((found.version, &found.body), (2, &json!({ "text": "two" })));
    assert_eq!(scene.head().await.0, 2, "what failed is not in the log");

    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.store.record(&setting("motd")).await.expect("the store answers"), Some(found));
    scene.commit(write(setting("motd"), RecordCheck::Version(2), None)).await;
    assert_eq!(scene.store.record(&setting("motd")).await.expect("the store answers"), None);
    scene.commit(write(setting("motd"), RecordCheck::Absent, Some(json!(3)))).await;
}

async fn of_many_who_saw_the_same_version_one_changes_the_record(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    for round in 0..8 {
        let when = if round == 0 { RecordCheck::Absent } else { RecordCheck::Version(round) };
        let results = scene
            .at_once(
                move |n, store| async move { (n, store.commit(write(setting("counter"), when, Some(json!(n)))).await) },
            )
            .await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
        assert_eq!(won.len(), 1, "one of the writers");
        for (_, result) in lost {
            assert!(matches!(conflict(result), Conflict::Record { found, .. } if found == round + 1));
        }
        let found = scene.store.record(&setting("counter")).await.expect("the store answers").expect("it is there");
        assert_eq!((found.version, found.body), (round + 1, json!(won[0].0)));
    }
}

async fn records_of_one_kind_and_tenant_are_listed_by_name(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let names = ["b", "a", "B", "ab", "a b", "a%", "ä"];
    let places = [
        (RecordKind::Setting, None),
        (RecordKind::Setting, Some(&ours)),
        (RecordKind::Setting, Some(&theirs)),
        (RecordKind::User, Some(&ours)),
        (RecordKind::DeathLog, Some(&ours)),
    ];
    for (n, (kind, tenant)) in places.into_iter().enumerate() {
        for name in names {
            let body = json!({ "place": n, "name": name });
            scene.commit(write(key(kind, tenant, name), RecordCheck::Absent, Some(body))).await;
        }
    }
    let mut sorted = names;
    sorted.sort_unstable();
    for (n, (kind, tenant)) in places.into_iter().enumerate() {
        let listed = scene.store.records(kind, tenant).await.expect("the store answers");
        let found: Vec<_> = listed.iter().map(|record| record.key.name.as_str()).collect();
        assert_eq!(found, sorted);
        assert!(listed.iter().all(|record| record.body["place"] == n && record.key.tenant.as_ref() == tenant));
        for name in names {
            let found = scene.store.record(&key(kind, tenant, name)).await.expect("the store answers");
            assert_eq!(found.expect("it is there").body, json!({ "place": n, "name": name }));
        }
    }
    assert_eq!(scene.store.records(RecordKind::SigningKey, None).await.expect("the store answers"), []);
}

async fn a_record_is_gone_after_its_time(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let brief = |name: &str, ttl| {
        let change =
            RecordChange { key: setting(name), when: RecordCheck::Absent, body: Some(json!(1)), ttl: Some(ttl) };
        Commit::new(commit_id(), vec![Change::Record(change)])
    };
    scene.commit(brief("gone", Duration::ZERO)).await;
    scene.commit(brief("stays", Duration::from_secs(3600))).await;
    assert_eq!(scene.store.record(&setting("gone")).await.expect("the store answers"), None);
    let listed = scene.store.records(RecordKind::Setting, None).await.expect("the store answers");
    assert_eq!(listed.iter().map(|record| record.key.name.as_str()).collect::<Vec<_>>(), ["stays"]);
    // Its place is free again, as if it had never been there.
    scene.commit(write(setting("gone"), RecordCheck::Absent, Some(json!(2)))).await;
    let found = scene.store.record(&setting("gone")).await.expect("the store answers").expect("it is there");
    assert_eq!((found.version, found.body, found.expires), (1, json!(2), None));
}
