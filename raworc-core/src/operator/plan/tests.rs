use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::agent::{AgentSpec, Inbox, Status};
use crate::entropy::{EntropyExt, SystemEntropy};
use crate::ids::{AgentName, ComputerId, Incarnation, Revision, RuntimeName, TenantName, UserName};
use crate::runtime::StartId;
use crate::store::{AgentChange, Commit, NewComputer, Rows};

const LIFE: [&str; 11] = [
    "init, nothing begun",
    "init, to be tried again",
    "init, begun",
    "init, started",
    "init, booted before its start was recorded",
    "init, being stopped",
    "idle",
    "busy",
    "slept, being stopped",
    "slept",
    "deleted",
];
const DESIRED: [Desired; 3] = [Desired::Awake, Desired::Asleep, Desired::Deleted];
const WORK: [Work; 3] = [Work::None, Work::Begun, Work::Engine];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

fn seen() -> [(&'static str, Observation); 7] {
    let start = |id: &str| StartId(id.into());
    [
        ("unknown", Observation::Unknown),
        ("absent", Observation::Absent),
        ("stopped", Observation::Present(Phase::Stopped { reason: Some("exit code 1".into()) })),
        ("unfit", Observation::Present(Phase::Unfit { reason: "no C library".into() })),
        ("running", Observation::Present(Phase::Running(start("this")))),
        ("running-other", Observation::Present(Phase::Running(start("other")))),
        ("stopping", Observation::Present(Phase::Stopping(start("this")))),
    ]
}

/// An agent in this part of its life at second 0. It was heard at second 0 and may be idle for 300 s, busy for 600 s.
fn agent(life: &str, desired: Desired) -> Agent {
    let mut status = Status::new(at(0));
    status.incarnation = Incarnation(1);
    status.observed_generation = 1;
    status.computer = Some(SystemEntropy.computer_id(at(0)));
    let run = |started: bool, booted: bool, ending: bool| Run {
        incarnation: Incarnation(1),
        began_at: at(0),
        operator: Some(operator()),
        step_bytes: 0,
        log_wanted: false,
        settled: false,
        setup: None,
        deadline: at(120),
        start_id: started.then(|| StartId("this".into())),
        key_hash: None,
        booted_at: booted.then(|| at(0)),
        ready_at: None,
        ending,
    };
    let (state, run) = match life {
        "init, nothing begun" => (State::Init, None),
        "init, to be tried again" => {
            status.retry_at = Some(at(8));
            (State::Init, None)
        }
        "init, begun" => (State::Init, Some(run(false, false, false))),
        "init, started" => (State::Init, Some(run(true, false, false))),
        "init, booted before its start was recorded" => (State::Init, Some(run(false, true, false))),
        "init, being stopped" => (State::Init, Some(run(true, true, true))),
        "idle" | "busy" => {
            status.heard_at = Some(at(0));
            status.awake_until = Some(at(300));
            if life == "busy" {
                status.message = Some(SystemEntropy.message_id(at(0)));
                status.busy_until = Some(at(600));
            }
            (if life == "idle" { State::Idle } else { State::Busy }, Some(run(true, true, false)))
        }
        "slept, being stopped" => (State::Slept, Some(run(true, true, true))),
        "slept" => (State::Slept, None),
        _ => {
            status.computer = None;
            (State::Deleted, None)
        }
    };
    status.run = run;
    status.state_moved(state);
    Agent {
        id: SystemEntropy.agent_id(at(0)),
        tenant: TenantName::default(),
        name: AgentName::new("a").expect("a name"),
        owner: UserName::new("ada").expect("a name"),
        spec: AgentSpec { idle_timeout: 300, busy_timeout: 600, ..AgentSpec::default() },
        desired,
        status,
        generation: 1,
        revision: Revision::default(),
        created_at: at(0),
        inbox: Inbox::default(),
    }
}

/// A computer as the agent's spec wants it now.
fn made_for(agent: &Agent, id: ComputerId, volume: VolumeId) -> ComputerSpec {
    agent.wanted(id, volume, true)
}

/// The operator that plans, and that has begun what was begun.
fn operator() -> ProcessId {
    ProcessId::from_uuid(uuid::Uuid::from_u128(1))
}

/// The row of the agent's computer, which is as its spec wants it.
fn computer_of(agent: &Agent) -> Option<Computer> {
    Some(Computer {
        tenant: agent.tenant.clone(),
        agent: agent.id,
        runtime: RuntimeName::simulated(),
        spec: made_for(agent, agent.status.computer?, SystemEntropy.volume_id(at(0))),
        reclaim_since: None,
        keep_volume: false,
        unsettled: false,
        disk_limit: true,
    })
}

fn view<'a>(agent: &'a Agent, computer: Option<&'a Computer>, now: Timestamp) -> View<'a> {
    View {
        agent,
        computer,
        observed: Observation::Unknown,
        reached: LimitsReached::default(),
        disk_limit: true,
        work: Work::None,
        operator: operator(),
        operators: &[],
        listening: Some(at(-1000)),
        moved: &[],
        now,
    }
}

fn next(view: &View<'_>) -> Plan {
    plan(view, &OperatorSettings::default())
}

/// A plan in a line. Times are seconds from `now`.
fn line(plan: &Plan, now: Timestamp) -> String {
    let op = |op: &AgentOp| match op {
        AgentOp::Transition { event, reason, backoff, .. } => {
            let backoff = match backoff {
                Some(Backoff::After(wait)) => format!(", next in {} s", wait.as_secs()),
                Some(Backoff::UntilChanged) => ", next when changed".into(),
                None => String::new(),
            };
            format!("{event:?} ({reason}{backoff})")
        }
        AgentOp::SetDesired { desired, .. } => format!("wants {desired:?}"),
        AgentOp::SetCondition { kind, .. } => format!("set {kind:?}"),
        AgentOp::ClearCondition(kind) => format!("clear {kind:?}"),
        AgentOp::Started { .. } => "record its start".into(),
        AgentOp::ClockMoved(_) => "move its times along".into(),
        other => format!("{other:?}"),
    };
    match plan {
        Plan::Wait(None) => "wait".into(),
        Plan::Wait(Some(at)) => format!("wait {} s", at.duration_since(now).as_secs()),
        Plan::Commit { when, ops, release } => {
            let ops: Vec<_> = ops.iter().map(op).collect();
            let mut line = ops.join(", ");
            if !when.is_empty() {
                write!(line, " if {when:?}").expect("a text");
            }
            if *release {
                line += ", quota given back";
            }
            line
        }
        Plan::Begin { on, wake } => {
            let on = match on {
                Place::Same => "its computer",
                Place::Fresh(_) => "another computer",
                Place::First => "its first computer",
            };
            format!("begin on {on}{}", if *wake { ", waking" } else { "" })
        }
        Plan::Drain => "cancel a part of what waits".into(),
        Plan::Start => "start".into(),
        Plan::Stop => "stop".into(),
    }
}

#[test]
fn the_next_step_in_every_state_whatever_is_wanted_seen_and_done() {
    let mut table = String::new();
    for life in LIFE {
        for desired in DESIRED {
            let agent = agent(life, desired);
            let computer = computer_of(&agent);
            let mut steps: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
            for work in WORK {
                let mut all = BTreeMap::<String, Vec<&str>>::new();
                for (name, observed) in seen() {
                    let view = View { observed, work, ..view(&agent, computer.as_ref(), at(1)) };
                    all.entry(line(&next(&view), at(1))).or_default().push(name);
                }
                for (step, names) in all {
                    let names = if names.len() == seen().len() { "anything".into() } else { names.join("|") };
                    steps.entry(step).or_default().entry(names).or_default().push(format!("{work:?}"));
                }
            }
            writeln!(table, "{life}; wanted {desired:?}").expect("a text");
            for (step, when) in steps {
                let when = when.into_iter().map(|(names, works)| {
                    if works.len() == WORK.len() { names } else { format!("{names} & {}", works.join("|")) }
                });
                writeln!(table, "    {}: {step}", when.collect::<Vec<_>>().join(", ")).expect("a text");
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_next_step_as_time_goes_by() {
    let mut table = String::new();
    let mut row = |what: &str, life: &str, now: i64, change: &dyn Fn(&mut Agent), known: &dyn Fn(&mut View<'_>)| {
        let mut agent = agent(life, Desired::Awake);
        change(&mut agent);
        let computer = computer_of(&agent);
        let mut view = view(&agent, computer.as_ref(), at(now));
        known(&mut view);
        writeln!(table, "{what}: {}", line(&next(&view), at(now))).expect("a text");
    };
    let same: &dyn Fn(&mut Agent) = &|_| {};
    let usual: &dyn Fn(&mut View<'_>) = &|_| {};
    let heard: &dyn Fn(&mut Agent) = &|a| a.status.heard_at = Some(at(299));
    row("a start in time", "init, started", 119, same, usual);
    row("a start that took too long", "init, started", 120, same, usual);
    row("a start that failed before and took too long", "init, started", 120, &|a| a.status.restarts = 4, usual);
    row("a failed start before its time", "init, to be tried again", 7, same, usual);
    row("a failed start when its time has come", "init, to be tried again", 8, same, usual);
    row("a failed start after a change", "init, to be tried again", 7, &|a| a.generation = 2, usual);
    row("a failed start whose time is beyond any backoff", "init, to be tried again", -1000, same, usual);
    let until_changed: &dyn Fn(&mut Agent) = &|a| a.status.retry_at = Some(Timestamp::MAX);
    row("a setup that failed", "init, to be tried again", 7, until_changed, usual);
    row("a program that was heard 29 s ago", "idle", 29, same, usual);
    row("a program that was not heard for 30 s", "idle", 30, same, usual);
    row("the same, where the server came 10 s ago", "idle", 30, same, &|v| v.listening = Some(at(20)));
    row("the same, where no server lives", "idle", 30, same, &|v| v.listening = None);
    row("an idle agent a second before its time", "idle", 299, heard, usual);
    row("an idle agent whose time is over", "idle", 300, heard, usual);
    row(
        "the same with a message in its inbox",
        "idle",
        300,
        &|a| {
            heard(a);
            a.inbox.queued = 1
        },
        usual,
    );
    row(
        "the same where it may be idle for ever",
        "idle",
        300,
        &|a| {
            heard(a);
            a.spec.idle_timeout = 0
        },
        usual,
    );
    row("the same where a server came just now", "idle", 300, heard, &|v| v.listening = Some(at(299)));
    row("the same where no server lives", "idle", 300, heard, &|v| v.listening = None);
    row("a busy agent whose idle time is over", "busy", 301, heard, usual);
    let too_long: &dyn Fn(&mut Agent) = &|a| a.status.heard_at = Some(at(599));
    row("a busy agent whose message took too long", "busy", 600, too_long, usual);
    row("the same where a server came just now", "busy", 600, too_long, &|v| v.listening = Some(at(599)));
    row("the same where no server lives", "busy", 600, too_long, &|v| v.listening = None);
    row("the same where its program is gone", "busy", 600, too_long, &|v| v.observed = Observation::Absent);
    row("a busy agent with a cancel", "busy", 5, &|a| a.status.cancel_by = Some(at(10)), usual);
    row("a busy agent that did not obey a cancel", "busy", 10, &|a| a.status.cancel_by = Some(at(10)), usual);
    row("a busy agent that is to sleep", "busy", 1, &|a| a.desired = Desired::Asleep, usual);
    let pending: &dyn Fn(&mut Agent) = &|a| {
        a.status.set_condition(ConditionKind::SleepPending, true, "MessageInHand", "", at(0));
    };
    row("a busy agent that is not to sleep any more", "busy", 1, pending, usual);
    row("an idle agent after the clock was set back", "idle", -3600, same, usual);
    const MOVED: Timestamp = Timestamp::constant(1_000_000 + 3601, 0);
    const AHEAD: &[ClockMove] = &[ClockMove { ahead: Duration::from_secs(3600), at: MOVED, noticed_at: MOVED }];
    let ahead: &dyn Fn(&mut View<'_>) = &|v| v.moved = AHEAD;
    row("an idle agent after the clock went ahead", "idle", 3602, same, ahead);
    row("a busy agent after the clock went ahead", "busy", 3602, same, ahead);
    row("a slept agent after the clock went ahead", "slept", 3602, &|a| a.desired = Desired::Asleep, ahead);
    insta::assert_snapshot!(table);
}

#[test]
fn a_computer_that_is_not_as_the_spec_wants_it_is_replaced_at_the_next_start_on_the_same_volume() {
    let agent = agent("slept", Desired::Awake);
    let mut computer = computer_of(&agent).expect("a computer");
    assert_eq!(line(&next(&view(&agent, Some(&computer), at(1))), at(1)), "begin on its computer, waking");
    computer.spec.root = !computer.spec.root;
    let Plan::Begin { on, .. } = next(&view(&agent, Some(&computer), at(1))) else { panic!("a start") };
    assert_eq!(on, Place::Fresh(computer.spec.volume));
    assert_eq!(line(&next(&view(&agent, None, at(1))), at(1)), "begin on its first computer, waking");
}

#[test]
fn a_list_of_what_may_be_reached_needs_no_other_computer() {
    let mut agent = agent("slept", Desired::Awake);
    let computer = computer_of(&agent).expect("a computer");
    agent.spec.network.egress = vec![crate::agent::EgressRule { host: "example.org".into(), ports: Vec::new() }];
    assert_eq!(place(&view(&agent, Some(&computer), at(0))), Place::Same);
    agent.spec.network.mode = crate::agent::NetworkMode::Open;
    assert_eq!(place(&view(&agent, Some(&computer), at(0))), Place::Fresh(computer.spec.volume));
}

/// What is known of an agent, with everything that an engine would do at once done at once.
struct Model {
    agent: Agent,
    computer: Option<Computer>,
    observed: Observation,
    work: Work,
    moved: Vec<ClockMove>,
    now: Timestamp,
}

impl Model {
    fn next(&self, listening: Option<Timestamp>) -> Plan {
        let known = view(&self.agent, self.computer.as_ref(), self.now);
        let (observed, work, moved) = (self.observed.clone(), self.work, &self.moved[..]);
        next(&View { observed, work, moved, listening, ..known })
    }

    fn commit(&mut self, mut when: Vec<Check>, ops: Vec<AgentOp>) {
        when.push(Check::Status(self.agent.status.version));
        let change = AgentChange { agent: self.agent.id, when, ops };
        let commit = Commit::of(SystemEntropy.commit_id(at(0)), change);
        let mut rows = Rows::at(self.now);
        rows.agents.insert(self.agent.id, self.agent.clone());
        rows.computers.extend(self.computer.clone().map(|computer| (computer.id(), computer)));
        let evaluated = commit.evaluate(rows).expect("what was planned holds");
        self.agent = evaluated.agents.into_iter().next().expect("the agent");
        if let Some(computer) = evaluated.computers.into_iter().find(|c| Some(c.id()) == self.agent.status.computer) {
            self.computer = Some(computer);
        }
    }

    /// Carries a step out. Whether it was one.
    fn carry_out(&mut self, plan: Plan) -> bool {
        self.moved.clear();
        let start_id = StartId(format!("start-{}", self.agent.status.incarnation.0));
        match plan {
            Plan::Wait(_) => return false,
            Plan::Commit { when, ops, .. } => self.commit(when, ops),
            Plan::Drain => self.agent.inbox.queued -= DRAINED.min(self.agent.inbox.queued),
            Plan::Begin { on, wake } => {
                let fresh = |volume| NewComputer {
                    runtime: RuntimeName::simulated(),
                    spec: made_for(&self.agent, SystemEntropy.computer_id(at(0)), volume),
                    disk_limit: true,
                };
                let computer = match on {
                    Place::Same => None,
                    Place::Fresh(volume) => Some(fresh(volume)),
                    Place::First => Some(fresh(SystemEntropy.volume_id(at(0)))),
                };
                let mut ops = Vec::new();
                if wake {
                    ops.push(AgentOp::Transition {
                        event: AgentEvent::WakeAsked,
                        reason: "Waking".into(),
                        message: String::new(),
                        backoff: None,
                    });
                }
                let (deadline, generation) = (Duration::from_secs(120), self.agent.generation);
                ops.push(AgentOp::Begin {
                    operator: operator(),
                    computer,
                    key_hash: String::new(),
                    deadline,
                    generation,
                });
                self.commit(Vec::new(), ops);
                (self.work, self.observed) = (Work::Begun, Observation::Unknown);
            }
            Plan::Start => {
                self.commit(Vec::new(), vec![AgentOp::Started { start_id: start_id.clone() }]);
                (self.work, self.observed) = (Work::None, Observation::Present(Phase::Running(start_id)));
            }
            Plan::Stop => {
                let incarnation = self.agent.status.incarnation;
                self.commit(Vec::new(), vec![AgentOp::RunEnded { incarnation }]);
                (self.work, self.observed) = (Work::None, Observation::Present(Phase::Stopped { reason: None }));
            }
        }
        true
    }
}

proptest! {
    #[test]
    fn from_whatever_is_known_a_few_steps_lead_to_rest(
        (life, desired, observed, work) in (0..LIFE.len(), 0..DESIRED.len(), 0usize..6, 0..WORK.len()),
        (now, heard, awake, busy) in (-5000i64..5000, -5000i64..5000, -5000i64..5000, -5000i64..5000),
        listening in proptest::option::of(-5000i64..5000),
        (cancel, ahead) in (proptest::option::of(-5000i64..5000), proptest::option::of(2u64..5000)),
        (queued, restarts, generation) in (prop_oneof![9 => 0u64..3, 1 => 0..3 * DRAINED], 0u32..40, 1u64..3),
    ) {
        let mut agent = agent(LIFE[life], DESIRED[desired]);
        agent.status.heard_at = agent.status.heard_at.map(|_| at(heard));
        agent.status.awake_until = agent.status.awake_until.map(|_| at(awake));
        agent.status.busy_until = agent.status.busy_until.map(|_| at(busy));
        agent.status.cancel_by = cancel.filter(|_| agent.status.message.is_some()).map(at);
        // The message that it holds has no row here.
        agent.status.message = None;
        (agent.inbox.queued, agent.status.restarts, agent.generation) = (queued, restarts, generation);
        let ahead = ahead.map(Duration::from_secs);
        let moved = ahead.map(|ahead| ClockMove { ahead, at: at(now), noticed_at: at(now) }).into_iter().collect();
        let observed = seen()[observed].1.clone();
        let computer = computer_of(&agent);
        let mut model = Model { agent, computer, observed, work: WORK[work], moved, now: at(now) };
        let mut steps = Vec::new();
        loop {
            let plan = model.next(listening.map(at));
            steps.push(line(&plan, model.now));
            prop_assert!(steps.len() < 12, "it does not come to rest: {steps:#?}");
            if !model.carry_out(plan) {
                break;
            }
        }
        if model.agent.desired == Desired::Deleted {
            prop_assert_eq!(model.agent.status.state(), State::Deleted);
        }
    }
}
