//! Requests that are sent again under a caller's key.

use std::sync::Arc;
use std::time::Duration;

use super::scene::{Scene, agent_name, conflict, creation, spec};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::TenantName;
use crate::store::{
    AgentQuery, AuditEntry, AuditQuery, Commit, Committed, Conflict, IdempotencyKey, IdempotencyRecord, QuotaDelta,
    QuotaKind,
};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(a_key_gives_the_first_answer_again_and_changes_nothing shows "S10"),
        case!(a_key_that_was_used_for_another_request_is_a_conflict shows "S10"),
        case!(a_key_belongs_to_its_principal_and_is_read_to_the_letter shows "S10"),
        case!(of_many_requests_with_one_key_one_has_an_effect shows "S10"),
        case!(a_key_is_forgotten_after_its_time_and_when_its_commit_failed shows "S10"),
    ]
}

/// A request that makes an agent, under a key.
fn request(principal: &str, key: &str, name: &str) -> Commit {
    let default = TenantName::default();
    Commit {
        idempotency: Some(IdempotencyRecord {
            key: IdempotencyKey { principal: principal.into(), key: key.into() },
            request: format!("hash of a request for {name}"),
            ttl: Duration::from_secs(3600),
        }),
        quota: vec![QuotaDelta { tenant: default.clone(), kind: QuotaKind::Agents, delta: 1, limit: None }],
        audit: Some(AuditEntry {
            tenant: Some(default.clone()),
            principal: principal.into(),
            verb: "agents.create".into(),
            resource: name.into(),
            allowed: true,
            request: None,
        }),
        ..creation(&default, name, spec())
    }
}

/// What a request may change: the log, quotas, audit rows.
async fn marks(scene: &Scene) -> (u64, u64, usize) {
    let used = scene.store.usage(&TenantName::default(), QuotaKind::Agents).await.expect("the store answers");
    let audit = AuditQuery { tenant: None, after: None, limit: 500 };
    let audited = scene.store.audit(&audit).await.expect("the store answers").items.len();
    (scene.head().await.0, used, audited)
}

async fn a_key_gives_the_first_answer_again_and_changes_nothing(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let first = scene.commit(request("user:ada", "k", "one")).await;
    assert!(!first.replayed);
    scene.accept(first.agents[0].id, "meanwhile").await;
    let before = marks(&scene).await;
    let expected = Committed { replayed: true, ..first };
    assert_eq!(scene.commit(request("user:ada", "k", "one")).await, expected);
    assert_eq!(marks(&scene).await, before);

    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.commit(request("user:ada", "k", "one")).await, expected);
    assert_eq!(marks(&scene).await, before);
}

async fn a_key_that_was_used_for_another_request_is_a_conflict(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    scene.commit(request("user:ada", "k", "one")).await;
    let before = marks(&scene).await;
    let other = scene.store.commit(request("user:ada", "k", "two")).await;
    assert_eq!(conflict(other), Conflict::IdempotencyMismatch);
    assert_eq!(marks(&scene).await, before);
    let found = scene.store.agent(&TenantName::default(), &agent_name("two")).await.expect("the store answers");
    assert_eq!(found.value, None);
}

async fn a_key_belongs_to_its_principal_and_is_read_to_the_letter(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let keys = ["key", "Key", "key ", "kéy", "ke\u{301}y", "key%", &"k".repeat(255)];
    let mut made = 0;
    for principal in ["user:ada", "user:bob"] {
        for key in keys {
            made += 1;
            let answer = scene.commit(request(principal, key, &format!("agent-{made}"))).await;
            assert!(!answer.replayed, "{key:?} of {principal} is new");
        }
    }
    assert_eq!(marks(&scene).await.1, made);
}

async fn of_many_requests_with_one_key_one_has_an_effect(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    for round in 0..6 {
        let results = scene
            .at_once(move |_, store| async move {
                let name = format!("agent-{round}");
                store.commit(request("user:ada", &format!("key-{round}"), &name)).await
            })
            .await;
        let results: Vec<_> = results.into_iter().map(|result| result.expect("the commit goes through")).collect();
        assert_eq!(results.iter().filter(|result| !result.replayed).count(), 1);
        let first = Committed { replayed: false, ..results[0].clone() };
        for result in results {
            assert_eq!(Committed { replayed: false, ..result }, first);
        }
    }
    assert_eq!(marks(&scene).await, (6, 6, 6));
    let agents = scene.store.agents(&AgentQuery::of(TenantName::default())).await.expect("the store answers").items;
    assert_eq!(agents.len(), 6);
}

async fn a_key_is_forgotten_after_its_time_and_when_its_commit_failed(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let mut brief = request("user:ada", "brief", "one");
    if let Some(record) = &mut brief.idempotency {
        record.ttl = Duration::ZERO;
    }
    scene.commit(brief).await;
    let again = scene.commit(request("user:ada", "brief", "two")).await;
    assert!(!again.replayed, "the key is free again");

    let taken = scene.store.commit(request("user:ada", "failed", "one")).await;
    assert_eq!(conflict(taken), Conflict::NameTaken(agent_name("one")));
    let free = scene.commit(request("user:ada", "failed", "three")).await;
    assert!(!free.replayed, "what failed has no answer to give again");
}
