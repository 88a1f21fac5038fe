//! Agents by name and by id, and the walls between tenants.

use std::sync::Arc;

use super::scene::{
    START, Scene, WRITERS, agent_name, begin, change, commit_id, conflict, creation, done, happens, new_computer, next,
    runtime, spec, tenant, user,
};
use super::{StoreCase, StoreUnderTest, case};
use crate::agent::{AgentEvent, AgentSpec, Desired, State};
use crate::ids::{RuntimeName, TenantName};
use crate::labels::{Labels, Selector};
use crate::message::MessageState;
use crate::step::{NewStep, StepKind};
use crate::store::{
    AgentOp, AgentQuery, Change, Check, Commit, ComputerQuery, Conflict, EventFilter, MessageQuery, QuotaDelta,
    QuotaKind, StepQuery, StoreError,
};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(of_many_who_want_a_name_one_gets_it shows "S9"),
        case!(a_name_is_free_again_once_its_agent_is_deleted shows "S9"),
        case!(a_name_may_be_used_in_every_tenant shows "S9", "S14"),
        case!(a_deleted_agent_is_shown_by_its_id_alone shows "S13"),
        case!(deleting_cancels_what_had_not_ended_and_frees_the_computer shows "S2", "S13"),
        case!(reads_of_a_tenant_show_no_other_tenant shows "S14"),
        case!(a_selector_leaves_out_what_does_not_match_and_nothing_else shows "S16"),
        case!(owners_and_states_are_told_apart shows "S16"),
        case!(messages_and_steps_are_told_apart shows "S16"),
        case!(computers_are_told_apart shows "S16"),
    ]
}

async fn names(scene: &Scene, query: &AgentQuery) -> Vec<String> {
    let page = scene.store.agents(query).await.expect("the store answers");
    assert_eq!(page.next, None, "one page holds them");
    page.items.iter().map(|agent| agent.name.to_string()).collect()
}

async fn of_many_who_want_a_name_one_gets_it(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    for round in 0..8 {
        let name = format!("prize-{round}");
        let results = scene
            .at_once(|_, store| {
                let commit = creation(&TenantName::default(), &name, spec());
                async move { store.commit(commit).await }
            })
            .await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let [Ok(won)] = &won[..] else { panic!("one of the writers gets the name, not {}", won.len()) };
        assert_eq!(lost.len(), WRITERS - 1);
        for result in lost {
            assert_eq!(conflict(result), Conflict::NameTaken(agent_name(&name)));
        }
        let found = scene.store.agent(&default, &agent_name(&name)).await.expect("the store answers").value;
        assert_eq!(found.as_ref(), won.agents.first());
    }
    assert_eq!(names(&scene, &AgentQuery::of(default)).await.len(), 8);
}

async fn a_name_is_free_again_once_its_agent_is_deleted(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let mut before = None;
    for _ in 0..3 {
        let agent = scene.create("phoenix").await;
        assert_ne!(Some(agent.id), before);
        let asked = AgentOp::SetDesired { desired: Desired::Deleted, retry: false };
        scene.change(agent.id, vec![asked]).await;
        let refused = scene.store.commit(creation(&default, "phoenix", spec())).await;
        assert_eq!(conflict(refused), Conflict::NameTaken(agent.name.clone()), "until it is deleted");
        let gone = change(agent.id, Check::Desired(Desired::Deleted), vec![happens(AgentEvent::DeleteAsked)]);
        scene.commit(gone).await;
        before = Some(agent.id);
    }
    let last = scene.create("phoenix").await;
    let found = scene.store.agent(&default, &last.name).await.expect("the store answers").value;
    assert_eq!(found, Some(last));
}

async fn a_name_may_be_used_in_every_tenant(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let (ours, theirs) = (tenant("ours"), tenant("theirs"));
    let here = scene.create_in(&ours, "twin").await;
    let there = scene.create_in(&theirs, "twin").await;
    for (tenant, agent) in [(&ours, &here), (&theirs, &there)] {
        let found = scene.store.agent(tenant, &agent.name).await.expect("the store answers").value;
        assert_eq!(found.as_ref(), Some(agent));
    }
    scene.delete(here.id).await;
    let found = scene.store.agent(&theirs, &there.name).await.expect("the store answers").value;
    assert_eq!(found, Some(there));
}

async fn a_deleted_agent_is_shown_by_its_id_alone(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let kept = scene.create("kept").await;
    let gone = scene.idle("gone").await;
    let gone = scene.delete(gone.id).await;
    assert_eq!(gone.status.state(), State::Deleted);
    let found = scene.store.agent(&default, &gone.name).await.expect("the store answers").value;
    assert_eq!(found, None);
    assert_eq!(names(&scene, &AgentQuery::of(default.clone())).await, ["kept"]);
    let deleted = AgentQuery { state: Some(State::Deleted), ..AgentQuery::of(default) };
    assert_eq!(names(&scene, &deleted).await, [""; 0]);
    assert_eq!(scene.agent(gone.id).await, gone);
    assert_eq!(scene.agent(kept.id).await, kept);
}

async fn deleting_cancels_what_had_not_ended_and_frees_the_computer(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("leaver").await;
    let computer = agent.status.computer.expect("it was started");
    let answered = scene.accept(agent.id, "answered").await.id;
    let held = scene.accept(agent.id, "held").await.id;
    let queued = scene.accept(agent.id, "queued").await.id;
    scene.change(agent.id, vec![AgentOp::Lease(answered), done(answered, "yes")]).await;
    scene.change(agent.id, vec![AgentOp::Lease(held)]).await;
    let quota = |delta| QuotaDelta { tenant: TenantName::default(), kind: QuotaKind::Agents, delta, limit: None };
    scene.commit(Commit { quota: vec![quota(1)], ..creation(&TenantName::default(), "other", spec()) }).await;

    scene.delete(agent.id).await;
    for (id, state) in
        [(answered, MessageState::Done), (held, MessageState::Cancelled), (queued, MessageState::Cancelled)]
    {
        let message = scene.store.message(agent.id, id).await.expect("the store answers").expect("it is kept");
        assert_eq!(message.state, state);
        assert!(message.ended_at.is_some());
    }
    let query = ComputerQuery { runtime: runtime(), reclaim: true, after: None, limit: 10 };
    let listed = scene.store.computers(&query).await.expect("the store answers").items;
    assert_eq!(listed.iter().map(|row| row.id()).collect::<Vec<_>>(), [computer]);
    let reclaimed = Commit { quota: vec![quota(-1)], ..Commit::new(commit_id(), vec![Change::Reclaimed(computer)]) };
    scene.commit(reclaimed.clone()).await;
    assert_eq!(scene.store.computer(computer).await.expect("the store answers"), None);
    let again = Commit { id: commit_id(), ..reclaimed };
    assert_eq!(conflict(scene.store.commit(again).await), Conflict::NotReclaimable(computer));
    let used = scene.store.usage(&TenantName::default(), QuotaKind::Agents).await.expect("the store answers");
    assert_eq!(used, 0);
}

async fn reads_of_a_tenant_show_no_other_tenant(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    // The second begins with the name of the first, as prefixes are easily mistaken for the whole.
    let tenants = [tenant("acme"), tenant("acme-2")];
    for tenant in &tenants {
        for name in ["one", "two"] {
            let agent = scene.create_in(tenant, name).await;
            scene.accept(agent.id, tenant.as_str()).await;
        }
        scene.create_in(tenant, &format!("only-{tenant}")).await;
    }
    for (tenant, other) in [(&tenants[0], &tenants[1]), (&tenants[1], &tenants[0])] {
        let page = scene.store.agents(&AgentQuery::of(tenant.clone())).await.expect("the store answers");
        assert_eq!(page.items.len(), 3);
        assert!(page.items.iter().all(|agent| agent.tenant == *tenant));
        for agent in &page.items {
            let messages = scene.store.messages(&MessageQuery::of(agent.id)).await.expect("the store answers").items;
            assert!(messages.iter().all(|message| message.tenant == *tenant && message.agent == agent.id));
        }
        let name = agent_name(&format!("only-{other}"));
        assert_eq!(scene.store.agent(tenant, &name).await.expect("the store answers").value, None);
        let filter = EventFilter { tenant: Some(tenant.clone()), agent: None };
        let expected = scene.log(START).await.iter().filter(|event| event.tenant.as_ref() == Some(tenant)).count();
        let mut watch = scene.watch(START, filter).await;
        let mut seen = Vec::new();
        while seen.len() < expected {
            seen.extend(next(&mut watch).await);
        }
        assert!(seen.iter().all(|event| event.tenant.as_ref() == Some(tenant)));
    }
}

async fn a_selector_leaves_out_what_does_not_match_and_nothing_else(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let labelled = [
        ("bare", vec![]),
        ("web", vec![("app", "web"), ("tier", "front")]),
        ("web-upper", vec![("app", "Web")]),
        ("db", vec![("app", "db"), ("tier", "back"), ("old", "")]),
        ("odd", vec![("a.b/c_d-e", "x_y"), ("app", "web%")]),
        ("key-upper", vec![("App", "web")]),
    ];
    let mut agents = Vec::new();
    for (name, labels) in labelled {
        let labels: Labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        agents.push(scene.create_with(&default, name, AgentSpec { labels, ..spec() }).await);
    }
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    for text in [
        "",
        "app=web",
        "app!=web",
        "app",
        "!app",
        "App",
        "app=Web",
        "old",
        "old=",
        "!old",
        "tier=back,old",
        "tier!=back",
        "app,!tier",
        "a.b/c_d-e=x_y",
        "a.b/c_d-e!=x_y",
        "aXb/c_d-e",
        "app=web,app=db",
        "missing",
        "missing!=1",
    ] {
        let selector: Selector = text.parse().expect("valid");
        let matching = agents.iter().filter(|agent| selector.matches(&agent.spec.labels));
        let expected: Vec<_> = matching.map(|agent| agent.name.to_string()).collect();
        let query = AgentQuery { selector, ..AgentQuery::of(default.clone()) };
        assert_eq!(names(&scene, &query).await, expected, "{text:?}");
    }
    // What a label is now counts, not what it was.
    let web = agents.iter().find(|agent| agent.name.as_str() == "web").expect("made above");
    scene.change(web.id, vec![AgentOp::SetSpec(Box::new(spec()))]).await;
    let query = AgentQuery { selector: "app=web".parse().expect("valid"), ..AgentQuery::of(default) };
    assert_eq!(names(&scene, &query).await, [""; 0]);
}

async fn owners_and_states_are_told_apart(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    scene.create("of-ada").await;
    scene.idle("of-ada-idle").await;
    let mut of_bob = creation(&default, "of-bob", spec());
    if let Some(Change::Agent(change)) = of_bob.changes.first_mut()
        && let Some(AgentOp::Create(new)) = change.ops.first_mut()
    {
        new.owner = user("bob");
    }
    scene.commit(of_bob).await;
    let of = |owner: Option<&str>, state| AgentQuery {
        owner: owner.map(user),
        state,
        ..AgentQuery::of(TenantName::default())
    };
    assert_eq!(names(&scene, &of(None, None)).await, ["of-ada", "of-ada-idle", "of-bob"]);
    assert_eq!(names(&scene, &of(Some("ada"), None)).await, ["of-ada", "of-ada-idle"]);
    assert_eq!(names(&scene, &of(Some("bob"), None)).await, ["of-bob"]);
    assert_eq!(names(&scene, &of(Some("eve"), None)).await, [""; 0]);
    assert_eq!(names(&scene, &of(None, Some(State::Init))).await, ["of-ada", "of-bob"]);
    assert_eq!(names(&scene, &of(Some("ada"), Some(State::Idle))).await, ["of-ada-idle"]);
    assert_eq!(names(&scene, &of(None, Some(State::Busy))).await, [""; 0]);
}

async fn messages_and_steps_are_told_apart(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("teller").await.id;
    let other = scene.idle("other").await.id;
    let (first, second) = (scene.accept(agent, "first").await.id, scene.accept(agent, "second").await.id);
    let elsewhere = scene.accept(other, "elsewhere").await.id;
    let step = |message, text: &str| AgentOp::AddSteps {
        message,
        attempt: 1,
        steps: vec![NewStep { kind: StepKind::Log, tool: None, text: text.into() }],
    };
    scene.change(agent, vec![step(None, "setup"), AgentOp::Lease(first), step(Some(first), "one")]).await;
    scene.change(agent, vec![step(Some(first), "two"), done(first, "answer"), step(Some(second), "three")]).await;
    scene.change(other, vec![step(Some(elsewhere), "four")]).await;

    let found = scene.store.message(agent, elsewhere).await.expect("the store answers");
    assert_eq!(found, None, "a message of another agent");
    let texts = |open, newest_first| {
        let query = MessageQuery { open, newest_first, ..MessageQuery::of(agent) };
        let store = Arc::clone(&scene.store);
        async move {
            let page = store.messages(&query).await.expect("the store answers");
            page.items.iter().map(|message| message.text()).collect::<Vec<_>>()
        }
    };
    assert_eq!(texts(false, false).await, ["first", "second", "answer"]);
    assert_eq!(texts(false, true).await, ["answer", "second", "first"]);
    assert_eq!(texts(true, false).await, ["second"]);
    let steps = |agent, message, after| {
        let query = StepQuery { agent, message, after, limit: 10 };
        let store = Arc::clone(&scene.store);
        async move {
            let page = store.steps(&query).await.expect("the store answers");
            page.items.into_iter().map(|step| step.text).collect::<Vec<_>>()
        }
    };
    assert_eq!(steps(agent, None, 0).await, ["setup", "one", "two", "three"]);
    assert_eq!(steps(agent, Some(first), 0).await, ["one", "two"]);
    assert_eq!(steps(agent, Some(first), 2).await, ["two"]);
    assert_eq!(steps(agent, Some(elsewhere), 0).await, [""; 0]);
    assert_eq!(steps(other, None, 0).await, ["four"]);
}

async fn computers_are_told_apart(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("mover").await;
    let old = agent.status.computer.expect("it was started");
    let volume = scene.store.computer(old).await.expect("the store answers").expect("it is there").spec.volume;
    // The next computer takes over the volume of the one before.
    let mut heir = new_computer();
    heir.spec.volume = volume;
    let new = heir.spec.id;
    scene.change(agent.id, vec![happens(AgentEvent::Lost), begin(Some(heir))]).await;
    let mut elsewhere = new_computer();
    elsewhere.runtime = RuntimeName::new("cloud").expect("valid");
    let away = scene.create("away").await;
    scene.change(away.id, vec![begin(Some(elsewhere))]).await;

    let listed = |reclaim, after| {
        let query = ComputerQuery { runtime: runtime(), reclaim, after, limit: 10 };
        let store = Arc::clone(&scene.store);
        async move {
            let page = store.computers(&query).await.expect("the store answers");
            page.items.iter().map(|row| (row.id(), row.keep_volume)).collect::<Vec<_>>()
        }
    };
    let mut all = [(old, true), (new, false)];
    all.sort_unstable();
    assert_eq!(listed(false, None).await, all);
    assert_eq!(listed(false, Some(all[0].0)).await, all[1..]);
    assert_eq!(listed(true, None).await, [(old, true)]);
    let refused = Commit::new(commit_id(), vec![Change::Reclaimed(new)]);
    let refused = scene.store.commit(refused).await;
    assert!(matches!(refused, Err(StoreError::Conflict(Conflict::NotReclaimable(id))) if id == new));
}
