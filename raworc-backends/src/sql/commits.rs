//! Commits for the tests of stores.

use std::time::Duration;

use raworc_core::agent::{AgentEvent, AgentSpec, State};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentId, AgentName, MessageId, TenantName, UserName};
use raworc_core::message::{Part, Role};
use raworc_core::store::{
    AgentChange, AgentOp, AgentQuery, Check, Commit, NewAgent, NewMessage, QuotaDelta, QuotaKind,
};

use super::script::Step;
use super::statements::agents;

pub(crate) fn change(agent: AgentId, when: Check, op: AgentOp) -> Commit {
    changes(agent, when, vec![op])
}

pub(crate) fn changes(agent: AgentId, when: Check, ops: Vec<AgentOp>) -> Commit {
    let id = SystemEntropy.commit_id(SystemClock.now());
    Commit::of(id, AgentChange { agent, when: vec![when], ops })
}

pub(crate) fn create(name: &str) -> (AgentId, Commit) {
    let agent = SystemEntropy.agent_id(SystemClock.now());
    let new = NewAgent {
        tenant: TenantName::default_tenant(),
        name: AgentName::new(name).expect("a good name"),
        owner: UserName::new("ada").expect("a good name"),
        spec: AgentSpec::default(),
    };
    (agent, change(agent, Check::Absent, AgentOp::Create(Box::new(new))))
}

/// The same with the quota that an agent takes.
pub(crate) fn counted(mut made: Commit, tenant: &TenantName) -> Commit {
    made.quota = vec![QuotaDelta { tenant: tenant.clone(), kind: QuotaKind::Agents, delta: 1, limit: Some(9) }];
    made
}

/// Starts an agent, whose program is ready then.
pub(crate) fn wake(agent: AgentId) -> [Commit; 2] {
    let begin = AgentOp::Begin {
        operator: SystemEntropy.process_id(SystemClock.now()),
        computer: None,
        key_hash: "hash".into(),
        deadline: Duration::from_secs(60),
        generation: 1,
    };
    let (event, reason) = (AgentEvent::Ready, "Ready".into());
    let ready = AgentOp::Transition { event, reason, message: String::new(), backoff: None };
    [begin, ready].map(|op| change(agent, Check::Alive, op))
}

pub(crate) fn accept(agent: AgentId, id: MessageId, text: &str) -> Commit {
    let parts = vec![Part::text(text)];
    change(
        agent,
        Check::Alive,
        AgentOp::Accept(NewMessage { id, role: Role::User, author: "user:ada".into(), parts, traceparent: None }),
    )
}

/// Lists of agents of each kind that somebody can ask for, and what each is of.
pub(crate) fn agent_lists() -> Vec<(String, Step)> {
    let mut lists = Vec::new();
    for owner in [None, Some(UserName::new("ada").expect("a good name"))] {
        for state in [None, Some(State::Idle)] {
            for selector in ["", "a=a", "a!=b,a", "!a"] {
                let mut query = AgentQuery::of(TenantName::default_tenant());
                query.selector = selector.parse().expect("a good selector");
                (query.owner, query.state) = (owner.clone(), state);
                lists.push((format!("agents of {owner:?} in {state:?} with {selector:?}"), agents(&query, 10)));
            }
        }
    }
    lists
}

pub(crate) fn message_id() -> MessageId {
    SystemEntropy.message_id(SystemClock.now())
}
