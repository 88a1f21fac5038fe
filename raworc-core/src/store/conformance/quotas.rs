//! Quotas: what a tenant uses, and where that ends.

use std::sync::Arc;

use super::scene::{Scene, agent_name, change, conflict, creation, spec, tenant};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::TenantName;
use crate::store::{AgentQuery, Check, Commit, Conflict, QuotaDelta, QuotaKind, StoreError};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(a_quota_is_not_exceeded_by_many_writers shows "S12"),
        case!(a_commit_that_fails_leaves_the_quota_as_it_was shows "S12", "S2"),
        case!(what_is_given_back_can_be_used_again shows "S12"),
    ]
}

fn delta(tenant: &TenantName, delta: i64, limit: Option<u64>) -> Vec<QuotaDelta> {
    vec![QuotaDelta { tenant: tenant.clone(), kind: QuotaKind::Agents, delta, limit }]
}

async fn used(scene: &Scene, tenant: &TenantName) -> u64 {
    scene.store.usage(tenant, QuotaKind::Agents).await.expect("the store answers")
}

async fn a_quota_is_not_exceeded_by_many_writers(subject: Arc<dyn StoreUnderTest>) {
    const LIMIT: u64 = 20;
    let scene = Scene::open(&*subject).await;
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let tenants = [ours.clone(), theirs.clone()];
    let results = scene
        .at_once(move |n, store| {
            let tenant = tenants[n / 2 % 2].clone();
            async move {
                let mut made = 0;
                for round in 0..6 {
                    let quota = delta(&tenant, 1, Some(LIMIT));
                    let commit = Commit { quota, ..creation(&tenant, &format!("agent-{n}-{round}"), spec()) };
                    match store.commit(commit).await {
                        Ok(_) => made += 1,
                        Err(StoreError::Conflict(Conflict::Quota { limit: LIMIT, .. })) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                made
            }
        })
        .await;
    assert_eq!(results.iter().sum::<u64>(), 2 * LIMIT);
    for tenant in [ours, theirs] {
        assert_eq!(used(&scene, &tenant).await, LIMIT);
        let page = scene.store.agents(&AgentQuery::of(tenant)).await.expect("the store answers");
        assert_eq!(page.items.len() as u64, LIMIT);
    }
}

async fn a_commit_that_fails_leaves_the_quota_as_it_was(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let first = scene.commit(Commit { quota: delta(&default, 1, Some(3)), ..creation(&default, "one", spec()) }).await;
    let taken = Commit { quota: delta(&default, 1, Some(3)), ..creation(&default, "one", spec()) };
    assert_eq!(conflict(scene.store.commit(taken).await), Conflict::NameTaken(agent_name("one")));
    assert_eq!(used(&scene, &default).await, 1);
    let two_at_once = [delta(&default, 1, Some(3)), delta(&default, 2, Some(3))].concat();
    let agent = first.agents[0].id;
    let over = Commit { quota: two_at_once, ..change(agent, Check::Alive, vec![]) };
    let refused = Conflict::Quota { tenant: default.clone(), kind: QuotaKind::Agents, limit: 3 };
    assert_eq!(conflict(scene.store.commit(over).await), refused);
    assert_eq!(used(&scene, &default).await, 1, "not the first half of it either");
    let scene = scene.reopen(&*subject).await;
    assert_eq!(used(&scene, &default).await, 1);
}

async fn what_is_given_back_can_be_used_again(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    for round in 0..5 {
        let name = format!("agent-{round}");
        let made =
            scene.commit(Commit { quota: delta(&default, 1, Some(1)), ..creation(&default, &name, spec()) }).await;
        assert_eq!(used(&scene, &default).await, 1);
        let back = Commit { quota: delta(&default, -1, Some(1)), ..change(made.agents[0].id, Check::Alive, vec![]) };
        scene.commit(back).await;
        assert_eq!(used(&scene, &default).await, 0);
    }
}
