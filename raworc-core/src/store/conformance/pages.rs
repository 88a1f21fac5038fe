//! Pages: one after the other, whatever is written meanwhile.

use std::sync::Arc;

use super::scene::{Scene, begin, change, commit_id, computer_id, creation, message, new_computer, runtime, spec};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::TenantName;
use crate::message::MESSAGE_LIMIT;
use crate::step::{NewStep, STEP_LIMIT, StepKind};
use crate::store::{
    AgentOp, AgentQuery, AuditEntry, AuditQuery, Check, Commit, ComputerQuery, MAX_PAGE, MAX_PAGE_BYTES, MessageQuery,
    Page, StepQuery,
};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(pages_of_agents_follow_each_other_while_others_come_and_go shows "S15"),
        case!(pages_of_filtered_agents_follow_each_other shows "S15", "S16"),
        case!(pages_of_messages_follow_each_other_in_both_directions shows "S15"),
        case!(pages_of_steps_and_audit_rows_follow_each_other_while_more_come shows "S15"),
        case!(pages_of_computers_follow_each_other shows "S15"),
        case!(a_page_holds_no_more_than_its_limit_and_the_last_says_so shows "S15"),
        case!(a_page_of_large_rows_ends_early_and_the_next_goes_on shows "S27", "S15"),
    ]
}

/// The cursor of a next page, where cursors are numbers.
fn number(next: Option<String>) -> Option<u64> {
    next.map(|next| next.parse().expect("the cursor is a number"))
}

async fn pages_of_agents_follow_each_other_while_others_come_and_go(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let mut staying = Vec::new();
    for n in 0..12 {
        staying.push(scene.create(&format!("m-{n:02}")).await.name.to_string());
    }
    let leaving = [scene.create("m-02-leaves").await.id, scene.create("m-09-leaves").await.id];
    let mut seen = Vec::new();
    let mut query = AgentQuery { limit: 3, ..AgentQuery::of(default) };
    for page in 0.. {
        let read: Page<_> = scene.store.agents(&query).await.expect("the store answers");
        seen.extend(read.items.iter().map(|agent| agent.name.to_string()));
        // Before what was read, and behind it; and some that was there goes.
        if page < 4 {
            scene.create(&format!("a-{page}")).await;
            scene.create(&format!("z-{page}")).await;
        }
        if let Some(id) = leaving.get(page) {
            scene.delete(*id).await;
        }
        match read.next {
            Some(next) if page < 12 => query.after = Some(next),
            Some(_) => panic!("the pages end: {seen:?}"),
            None => break,
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once, seen, "none twice");
    assert!(staying.iter().all(|name| seen.contains(name)), "none is left out: {seen:?}");
    assert!(!seen.contains(&"m-09-leaves".to_owned()), "what was gone before its page came is not shown");
}

async fn pages_of_filtered_agents_follow_each_other(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let mut wanted = Vec::new();
    for n in 0..20 {
        let labels = [("part".to_owned(), (n % 3).to_string())].into();
        let name = format!("agent-{n:02}");
        scene.create_with(&default, &name, crate::agent::AgentSpec { labels, ..spec() }).await;
        if n % 3 == 1 {
            wanted.push(name);
        }
    }
    let mut query = AgentQuery { selector: "part=1".parse().expect("valid"), limit: 2, ..AgentQuery::of(default) };
    let mut seen = Vec::new();
    loop {
        let page = scene.store.agents(&query).await.expect("the store answers");
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|agent| agent.name.to_string()));
        assert!(seen.len() <= wanted.len(), "{seen:?}");
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, wanted);
}

async fn pages_of_messages_follow_each_other_in_both_directions(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("talker").await.id;
    let other = scene.create("other").await.id;
    for n in 0..11 {
        scene.accept(id, &n.to_string()).await;
        scene.accept(other, "elsewhere").await;
    }
    for newest_first in [false, true] {
        let mut query = MessageQuery { newest_first, limit: 3, ..MessageQuery::of(id) };
        let mut seen = Vec::new();
        loop {
            let page = scene.store.messages(&query).await.expect("the store answers");
            seen.extend(page.items.iter().map(|message| message.seq));
            if seen.len() < 9 {
                scene.accept(id, "meanwhile").await;
            }
            match number(page.next) {
                // A reader of the oldest first may go on for ever: this one stops at what there was.
                Some(next) if seen.len() < 11 => query.after = Some(next),
                Some(_) | None => break,
            }
        }
        let first_eleven: Vec<u64> = if newest_first { (1..=seen[0]).rev().collect() } else { (1..=12).collect() };
        assert_eq!(seen[..11], first_eleven[..11], "newest first: {newest_first}");
    }
}

async fn pages_of_steps_and_audit_rows_follow_each_other_while_more_come(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let id = scene.idle("walker").await.id;
    let walk = |n: u64| {
        let step = NewStep { kind: StepKind::Log, tool: None, text: n.to_string() };
        let add = AgentOp::AddSteps { message: None, attempt: 0, steps: vec![step] };
        let audit = AuditEntry {
            tenant: Some(default.clone()),
            principal: "user:ada".into(),
            verb: format!("walk.{n}"),
            resource: "walker".into(),
            allowed: true,
            request: None,
        };
        // Two in three change something, so that some audit rows stand at the same revision.
        let ops = if n.is_multiple_of(3) { vec![] } else { vec![add] };
        Commit { audit: Some(audit), ..change(id, Check::Alive, ops) }
    };
    for n in 0..12 {
        scene.commit(walk(n)).await;
    }
    let mut query = StepQuery { agent: id, message: None, after: 0, limit: 3 };
    let mut steps = Vec::new();
    let mut walked = 12;
    loop {
        let page = scene.store.steps(&query).await.expect("the store answers");
        steps.extend(page.items.iter().map(|step| step.seq));
        if walked < 16 {
            scene.commit(walk(walked)).await;
            walked += 1;
        }
        match number(page.next) {
            Some(next) => query.after = next,
            None => break,
        }
    }
    assert!(steps.len() >= 8 && steps.iter().copied().eq(1..=steps.len() as u64), "{steps:?}");

    let there = usize::try_from(walked).expect("small");
    let mut query = AuditQuery { tenant: Some(default.clone()), after: None, limit: 2 };
    let mut verbs = Vec::new();
    loop {
        let page = scene.store.audit(&query).await.expect("the store answers");
        assert!(page.items.len() <= 2);
        verbs.extend(page.items.into_iter().map(|row| row.entry.verb));
        if walked < 20 {
            scene.commit(walk(walked)).await;
            walked += 1;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let expected: Vec<_> = (0..verbs.len()).map(|n| format!("walk.{n}")).collect();
    assert!(verbs.len() >= there, "{verbs:?}");
    assert_eq!(verbs, expected);
}

async fn pages_of_computers_follow_each_other(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let mut made = Vec::new();
    for n in 0..9 {
        let agent = scene.create(&format!("agent-{n}")).await.id;
        let computer = new_computer();
        made.push(computer.spec.id);
        scene.change(agent, vec![begin(Some(computer))]).await;
    }
    made.sort_unstable();
    let mut query = ComputerQuery { runtime: runtime(), reclaim: false, after: None, limit: 2 };
    let mut seen = Vec::new();
    loop {
        let page = scene.store.computers(&query).await.expect("the store answers");
        seen.extend(page.items.iter().map(|computer| computer.id()));
        assert!(seen.len() <= made.len(), "{seen:?}");
        match page.next {
            Some(next) => query.after = Some(next.parse().expect("the cursor is a computer's id")),
            None => break,
        }
    }
    assert_eq!(seen, made);
    assert_eq!(scene.store.computer(computer_id()).await.expect("the store answers"), None);
}

async fn a_page_holds_no_more_than_its_limit_and_the_last_says_so(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let id = scene.create("crowd").await.id;
    let accepted = MAX_PAGE + 1;
    for _ in 0..accepted.div_ceil(100) {
        let ops = (0..100).map(|_| message("one of many").1).collect();
        scene.change(id, ops).await;
    }
    let page = |limit| {
        let query = MessageQuery { limit, ..MessageQuery::of(id) };
        let store = Arc::clone(&scene.store);
        async move { store.messages(&query).await.expect("the store answers") }
    };
    for (asked, given) in [(1, 1), (99, 99), (MAX_PAGE, MAX_PAGE), (usize::MAX, MAX_PAGE)] {
        let page = page(asked).await;
        assert_eq!(page.items.len(), given, "asked for {asked}");
        assert_eq!(number(page.next), Some(given as u64));
    }
    scene.commit(Commit { id: commit_id(), ..creation(&default, "second", spec()) }).await;
    for (limit, names, next) in [
        (1, vec!["crowd"], Some("crowd".to_owned())),
        (2, vec!["crowd", "second"], None),
        (3, vec!["crowd", "second"], None),
    ] {
        let page = scene.store.agents(&AgentQuery { limit, ..AgentQuery::of(default.clone()) }).await;
        let page = page.expect("the store answers");
        assert_eq!(page.items.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(page.next, next, "{limit} of two");
    }
}

/// That a page is no longer than it may be, given the sizes of its rows, and that one that ends early was long enough.
#[track_caller]
fn ends_in_time(rows: &[usize], next: Option<&String>) {
    let bytes: usize = rows.iter().sum();
    let before_the_last = bytes - rows.last().expect("every page makes headway");
    assert!(before_the_last < MAX_PAGE_BYTES, "{} rows of {bytes} bytes", rows.len());
    assert!(next.is_none() || 2 * bytes >= MAX_PAGE_BYTES, "it ends after {bytes} bytes");
}

async fn a_page_of_large_rows_ends_early_and_the_next_goes_on(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.idle("wordy").await.id;
    for n in 0..20_usize {
        scene.accept(id, &format!("{n:02}").repeat(MESSAGE_LIMIT / 2)).await;
    }
    for newest_first in [false, true] {
        let mut query = MessageQuery { newest_first, ..MessageQuery::of(id) };
        let mut seen = Vec::new();
        loop {
            let page = scene.store.messages(&query).await.expect("the store answers");
            ends_in_time(&page.items.iter().map(|row| row.text().len()).collect::<Vec<_>>(), page.next.as_ref());
            seen.extend(page.items.iter().map(|message| message.seq));
            match number(page.next) {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let all: Vec<u64> = if newest_first { (1..=20).rev().collect() } else { (1..=20).collect() };
        assert_eq!(seen, all);
    }
    let step = NewStep { kind: StepKind::Log, tool: None, text: "s".repeat(STEP_LIMIT) };
    // As many at a time as a program's report may hold.
    for _ in 0..3 {
        let steps = vec![step.clone(); 100];
        scene.change(id, vec![AgentOp::AddSteps { message: None, attempt: 0, steps }]).await;
    }
    let mut query = StepQuery { agent: id, message: None, after: 0, limit: MAX_PAGE };
    let mut seen = Vec::new();
    loop {
        let page = scene.store.steps(&query).await.expect("the store answers");
        ends_in_time(&page.items.iter().map(|row| row.text.len()).collect::<Vec<_>>(), page.next.as_ref());
        seen.extend(page.items.iter().map(|step| step.seq));
        match number(page.next) {
            Some(next) => query.after = next,
            None => break,
        }
    }
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
    let long = crate::agent::AgentSpec {
        instructions: Some("i".repeat(64 << 10)),
        setup: Some("s".repeat(64 << 10)),
        ..spec()
    };
    for n in 0..100 {
        scene.create_with(&TenantName::default(), &format!("long-{n:03}"), long.clone()).await;
    }
    let mut query = AgentQuery::of(TenantName::default());
    let mut seen = 0;
    loop {
        let page = scene.store.agents(&query).await.expect("the store answers");
        let size = |agent: &crate::agent::Agent| {
            let texts = [&agent.spec.instructions, &agent.spec.setup];
            texts.into_iter().flatten().map(String::len).sum()
        };
        ends_in_time(&page.items.iter().map(size).collect::<Vec<_>>(), page.next.as_ref());
        seen += page.items.len();
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, 101);
}
