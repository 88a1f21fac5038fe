//! Audit rows: one for each commit that bears one, in the same commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scene::{Scene, WRITERS, agent_id, change, commit_id, conflict, creation, message, spec, tenant};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::{CommitId, Revision, TenantName};
use crate::store::{AuditEntry, AuditQuery, AuditRow, Check, Commit, Conflict};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(an_audit_row_says_who_did_what_and_where_it_stands_in_the_log shows "S11", "S1"),
        case!(a_commit_that_fails_bears_no_audit_row shows "S11", "S2"),
        case!(a_commit_sent_again_bears_no_second_audit_row shows "S11", "S6"),
        case!(every_commit_of_many_writers_bears_one_audit_row shows "S11"),
        case!(audit_rows_of_a_tenant_show_no_other_tenant shows "S14", "S11"),
    ]
}

fn entry(tenant: Option<&TenantName>, verb: &str) -> AuditEntry {
    AuditEntry {
        tenant: tenant.cloned(),
        principal: "user:ada".into(),
        verb: verb.into(),
        resource: "thing".into(),
        allowed: true,
        request: Some("request-1".into()),
    }
}

async fn rows(scene: &Scene, tenant: Option<TenantName>) -> Vec<AuditRow> {
    let query = AuditQuery { tenant, after: None, limit: 500 };
    scene.store.audit(&query).await.expect("the store answers").items
}

async fn an_audit_row_says_who_did_what_and_where_it_stands_in_the_log(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let made = entry(Some(&default), "agents.create");
    let creation = Commit { audit: Some(made.clone()), ..creation(&default, "watched", spec()) };
    let committed = scene.commit(creation.clone()).await;
    // An attempt that was not allowed changes nothing else.
    let refused = AuditEntry { allowed: false, request: None, ..entry(None, "users.create") };
    let attempt = Commit { audit: Some(refused.clone()), ..Commit::new(commit_id(), vec![]) };
    let noted = scene.commit(attempt.clone()).await;
    assert_eq!(noted.revision, committed.revision, "nothing was added to the log");

    let expected = [
        AuditRow { commit: creation.id, revision: Revision(1), at: committed.now, entry: made },
        AuditRow { commit: attempt.id, revision: Revision(1), at: noted.now, entry: refused },
    ];
    assert_eq!(rows(&scene, None).await, expected);
    let scene = scene.reopen(&*subject).await;
    assert_eq!(rows(&scene, None).await, expected);
}

async fn a_commit_that_fails_bears_no_audit_row(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let absent = agent_id();
    let commit = Commit { audit: Some(entry(None, "never")), ..change(absent, Check::Alive, vec![]) };
    assert_eq!(conflict(scene.store.commit(commit).await), Conflict::NoAgent(absent));
    assert_eq!(rows(&scene, None).await, []);
}

async fn a_commit_sent_again_bears_no_second_audit_row(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let commit = Commit { audit: Some(entry(Some(&default), "agents.create")), ..creation(&default, "once", spec()) };
    for _ in 0..3 {
        scene.commit(commit.clone()).await;
    }
    assert_eq!(rows(&scene, None).await.len(), 1);
}

async fn every_commit_of_many_writers_bears_one_audit_row(subject: Arc<dyn StoreUnderTest>) {
    const ROUNDS: usize = 6;
    let scene = Scene::open(&*subject).await;
    let id = scene.create("ledger").await.id;
    let results = scene
        .at_once(move |n, store| async move {
            let mut told: Vec<(CommitId, Revision, String)> = Vec::new();
            for round in 0..ROUNDS {
                let verb = format!("case.{n}.{round}");
                let when = if round == 2 { Check::Generation(99) } else { Check::Alive };
                let (_, accept) = message("audited");
                let commit = Commit {
                    audit: Some(entry(Some(&TenantName::default()), &verb)),
                    ..change(id, when, vec![accept])
                };
                let commit_id = commit.id;
                if let Ok(committed) = store.commit(commit).await {
                    told.push((commit_id, committed.revision, verb));
                }
            }
            told
        })
        .await;
    let rows = rows(&scene, None).await;
    assert!(rows.is_sorted_by_key(|row| row.revision), "rows stand in the order of the log");
    let kept: BTreeMap<_, _> = rows.iter().map(|row| (row.commit, (row.revision, row.entry.verb.clone()))).collect();
    let told: BTreeMap<_, _> =
        results.into_iter().flatten().map(|(id, revision, verb)| (id, (revision, verb))).collect();
    assert_eq!(kept, told);
    assert_eq!(rows.len(), WRITERS * (ROUNDS - 1));
}

async fn audit_rows_of_a_tenant_show_no_other_tenant(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let tenants = [Some(tenant("acme")), Some(tenant("acme-2")), None];
    for round in 0..3 {
        for tenant in &tenants {
            let audit = Some(entry(tenant.as_ref(), &format!("round.{round}")));
            scene.commit(Commit { audit, ..Commit::new(commit_id(), vec![]) }).await;
        }
    }
    assert_eq!(rows(&scene, None).await.len(), 9);
    for tenant in tenants.into_iter().flatten() {
        let rows = rows(&scene, Some(tenant.clone())).await;
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.entry.tenant.as_ref() == Some(&tenant)));
    }
}
