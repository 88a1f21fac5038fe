//! The log and those who watch it.

use std::sync::Arc;

use super::scene::{START, Scene, WRITERS, change, message, next, soon, tenant};
use super::{StoreCase, StoreUnderTest, case};
use crate::event::Event;
use crate::ids::Revision;
use crate::store::{Check, EventFilter, StoreError};
use futures::StreamExt;

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(a_watcher_sees_every_event_once_and_in_order_while_many_write shows "S18", "S5"),
        case!(a_watcher_may_begin_anywhere_in_the_log shows "S18"),
        case!(a_watcher_is_told_of_what_comes_after_it_has_caught_up shows "S18"),
        case!(a_filter_leaves_out_other_tenants_and_agents shows "S14", "S16", "S18"),
        case!(watching_from_before_the_start_of_the_log_is_gone shows "S19"),
    ]
}

async fn a_watcher_sees_every_event_once_and_in_order_while_many_write(subject: Arc<dyn StoreUnderTest>) {
    const ROUNDS: usize = 8;
    let scene = Scene::open(&*subject).await;
    let id = scene.create("stage").await.id;
    let total = 1 + (WRITERS * ROUNDS) as u64;
    let watchers: Vec<_> =
        futures::future::join_all((0..3).map(|n| scene.watch(Revision(n % 2), EventFilter::default())))
            .await
            .into_iter()
            .map(|mut watch| {
                tokio::spawn(async move {
                    let mut seen: Vec<Event> = Vec::new();
                    while seen.last().is_none_or(|event| event.revision.0 < total) {
                        seen.extend(next(&mut watch).await);
                    }
                    seen
                })
            })
            .collect();
    scene
        .at_once(move |_, store| async move {
            for _ in 0..ROUNDS {
                let (_, accept) = message("an event");
                store.commit(change(id, Check::Alive, vec![accept])).await.expect("the commit goes through");
            }
        })
        .await;
    for (n, watcher) in watchers.into_iter().enumerate() {
        let seen = watcher.await.expect("the watch goes on");
        let revisions: Vec<_> = seen.iter().map(|event| event.revision.0).collect();
        assert_eq!(revisions, (n as u64 % 2 + 1..=total).collect::<Vec<_>>());
    }
}

async fn a_watcher_may_begin_anywhere_in_the_log(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("book").await.id;
    for n in 0..20 {
        scene.accept(id, &format!("line {n}")).await;
    }
    let whole = scene.log(START).await;
    for since in 0..whole.len() as u64 {
        assert_eq!(scene.log(Revision(since)).await, whole[usize::try_from(since).expect("small")..]);
    }
}

async fn a_watcher_is_told_of_what_comes_after_it_has_caught_up(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("door").await.id;
    let mut watch = scene.watch(START, EventFilter::default()).await;
    assert_eq!(next(&mut watch).await.len(), 1);
    for revision in 2..12 {
        let asked = tokio::spawn(async move { (next(&mut watch).await, watch) });
        // The watcher has had its chance to fall asleep; whether it has, nobody can see from here.
        tokio::task::yield_now().await;
        scene.accept(id, "knock").await;
        let (events, back) = asked.await.expect("the watch goes on");
        assert!(events.iter().map(|event| event.revision.0).eq([revision]), "{events:?}");
        watch = back;
    }
}

async fn a_filter_leaves_out_other_tenants_and_agents(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let one = scene.create_in(&ours, "one").await.id;
    let two = scene.create_in(&ours, "two").await.id;
    let other = scene.create_in(&theirs, "one").await.id;
    for agent in [one, two, other, two, one, other] {
        scene.accept(agent, "hello").await;
    }
    let whole = scene.log(START).await;
    let filters = [
        EventFilter { tenant: Some(ours.clone()), agent: None },
        EventFilter { tenant: Some(theirs), agent: None },
        EventFilter { tenant: None, agent: Some(two) },
        EventFilter { tenant: Some(ours), agent: Some(one) },
    ];
    for filter in filters {
        let expected: Vec<_> = whole.iter().filter(|event| filter.matches(event)).cloned().collect();
        let mut watch = scene.watch(START, filter.clone()).await;
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            seen.extend(next(&mut watch).await);
        }
        assert_eq!(seen, expected, "{filter:?}");
    }
}

async fn watching_from_before_the_start_of_the_log_is_gone(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("old").await.id;
    for n in 0..9 {
        scene.accept(id, &format!("line {n}")).await;
    }
    subject.forget_log(&scene.store, Revision(6)).await;
    for since in 0..6 {
        let asked = scene.store.watch(Revision(since), EventFilter::default()).await;
        // A store may find out before it answers, or when the first events are read.
        let gone = match asked {
            Err(error) => error,
            Ok(mut watch) => match soon(watch.next()).await.expect("the watch says why it ends") {
                Err(error) => error,
                Ok(events) => panic!("watching from {since} is gone, and there was {events:?}"),
            },
        };
        assert!(matches!(gone, StoreError::Gone { oldest: Revision(7) }), "{gone:?}");
    }
    let rest = scene.log(Revision(6)).await;
    assert!(rest.iter().map(|event| event.revision.0).eq(7..=10), "{rest:?}");
    scene.accept(id, "goes on").await;
    assert_eq!(scene.log(Revision(6)).await.last().expect("an event").revision, Revision(11));
}
