use proptest::prelude::*;

use super::*;
use crate::agent::{AgentSpec, Desired, Inbox, Run, SetupRun, Status};
use crate::entropy::{EntropyExt, SystemEntropy};
use crate::ids::{AgentName, Incarnation, Revision, TenantName, UserName};

/// Milliseconds of a day after the epoch, and of everything else here.
const DAY: i64 = 86_400_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).expect("a time")
}

/// An agent as it is at a moment of that day: how long ago it was heard, its run began, its message was taken, and how
/// much of its times is left.
#[derive(Debug, Clone)]
struct Life {
    heard: i64,
    began: i64,
    since: i64,
    idle: u32,
    busy: u32,
    awake_left: i64,
    kept_left: Option<i64>,
    busy_left: i64,
    cancel_left: i64,
    ready_left: i64,
}

impl Life {
    /// One in which nothing is left of any time.
    const OVER: Self = Self {
        heard: 0,
        began: 10_000,
        since: 10_000,
        idle: 60,
        busy: 60,
        awake_left: 0,
        kept_left: None,
        busy_left: 0,
        cancel_left: 0,
        ready_left: 0,
    };

    fn any() -> impl Strategy<Value = Self> {
        let ago = || 0i64..15_000;
        (
            ago(),
            0i64..100_000_000,
            ago(),
            1u32..10_000,
            1u32..10_000,
            proptest::option::of(1i64..50_000_000),
            any::<[u16; 4]>(),
        )
            .prop_map(|(heard, began, since, idle, busy, kept_left, parts)| {
                let part = |of: i64, n: usize| of * i64::from(parts[n]) / i64::from(u16::MAX);
                let awake = i64::from(idle) * 1000;
                let awake_left = part(awake.max(25_000), 0).max(kept_left.unwrap_or(0));
                Self {
                    heard,
                    began: began.max(heard),
                    since,
                    idle,
                    busy,
                    awake_left,
                    kept_left,
                    busy_left: part(i64::from(busy) * 1000, 1),
                    cancel_left: part(10_000, 2),
                    ready_left: part(600_000, 3),
                }
            })
    }

    fn agent(&self, now: i64) -> Agent {
        let mut status = Status::new(at(now - self.since));
        status.heard_at = Some(at(now - self.heard));
        status.awake_until = Some(at(now + self.awake_left));
        status.keep_awake_until = self.kept_left.map(|left| at(now + left));
        status.busy_until = Some(at(now + self.busy_left));
        status.cancel_by = Some(at(now + self.cancel_left));
        status.run = Some(Run {
            incarnation: Incarnation(1),
            began_at: at(now - self.began),
            operator: None,
            step_bytes: 0,
            log_wanted: false,
            settled: false,
            setup: None,
            deadline: at(now + self.ready_left),
            start_id: None,
            key_hash: None,
            booted_at: None,
            ready_at: None,
            ending: false,
        });
        Agent {
            id: SystemEntropy.agent_id(at(DAY)),
            tenant: TenantName::default(),
            name: AgentName::new("a").expect("a name"),
            owner: UserName::new("ada").expect("a name"),
            spec: AgentSpec { idle_timeout: self.idle, busy_timeout: self.busy, ..AgentSpec::default() },
            desired: Desired::Awake,
            status,
            generation: 1,
            revision: Revision::default(),
            created_at: at(0),
            inbox: Inbox::default(),
        }
    }
}

/// What is left of each deadline: of the heartbeat, awake, busy, ready, kept, cancel.
fn left(agent: &Agent, now: i64) -> [Option<i64>; 6] {
    let status = &agent.status;
    let run = status.run.as_ref().expect("a run");
    [
        status.heartbeat_due(),
        status.awake_until,
        status.busy_until,
        Some(run.deadline),
        status.keep_awake_until,
        status.cancel_by,
    ]
    .map(|time| time.map(|time| time.as_millisecond() - now))
}

fn move_times(agent: &mut Agent, by: &[ClockMove], now: i64) {
    if let Some(times) = agent.times_after(by, at(now)) {
        agent.set_times(&times);
    }
}

const HOUR: i64 = 3_600_000;

/// A clock that went ahead and is `now` then.
fn ahead(by: i64, now: i64) -> ClockMove {
    ClockMove { ahead: Duration::from_millis(by.unsigned_abs()), at: at(now), noticed_at: at(now) }
}

proptest! {
    #[test]
    fn while_no_clock_was_moved_nothing_changes(life in Life::any()) {
        prop_assert_eq!(life.agent(DAY).times_after(&[], at(DAY)), None);
    }

    #[test]
    fn a_clock_that_went_ahead_takes_no_time_from_a_deadline_and_gives_none(life in Life::any(), jump in 2_000i64..100_000_000) {
        let mut agent = life.agent(DAY);
        let now = DAY + jump;
        let by = ahead(jump, now);
        let before = left(&agent, DAY);
        move_times(&mut agent, &[by], now);
        let after = left(&agent, now);
        if life.kept_left.is_some() {
            // It sleeps when the wish to keep it awake is over, if that is what its time is for.
            prop_assert!(after[4] <= after[1] && after[1] <= before[1]);
        } else {
            prop_assert_eq!(after[1], before[1]);
        }
        prop_assert_eq!([after[0], after[2], after[3]], [before[0], before[2], before[3]]);
        for n in [4, 5] {
            // Of these two only what the move would have ended is known to be from before it.
            prop_assert!(after[n] == before[n] || before[n].is_some_and(|left| left >= jump && after[n] == Some(left - jump)));
        }
        prop_assert_eq!(agent.times_after(&[], at(now)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_takes_no_time_from_a_deadline_and_freezes_none(life in Life::any(), jump in 20_000i64..86_000_000) {
        let mut agent = life.agent(DAY);
        let now = DAY - jump;
        let before = left(&agent, DAY);
        move_times(&mut agent, &[], now);
        for (before, after) in before.into_iter().zip(left(&agent, now)) {
            // As late as the last sign of the program is old.
            prop_assert!(before <= after && after <= before.map(|left| left + 15_000), "{before:?} {after:?}");
        }
        prop_assert_eq!(agent.times_after(&[], at(now)), None);
    }
}

#[test]
fn a_wish_that_is_newer_than_a_clock_set_back_is_kept() {
    let life = Life { began: 0, since: 0, awake_left: 20_000, ..Life::OVER };
    let (mut agent, now) = (life.agent(DAY), DAY - 100_000);
    agent.status.keep_awake_until = Some(at(now + 48_000));
    move_times(&mut agent, &[], now);
    assert_eq!(agent.status.awake_until, agent.status.keep_awake_until, "it sleeps when the wish is over");
    assert_eq!(agent.times_after(&[], at(now)), None);
}

/// A setup that began a second after the clock went ahead by an hour, for whose script there are 30 s, and that move.
fn setup_after_a_move() -> (Agent, ClockMove) {
    let (mut agent, now) = (Life::OVER.agent(DAY), DAY + HOUR);
    let run = agent.status.run.as_mut().expect("a run");
    run.setup = Some(SetupRun { hash: "hash".into(), began_at: at(now + 1_000) });
    run.deadline = at(now + 31_000);
    (agent, ahead(HOUR, now))
}

#[test]
fn a_setup_that_began_after_a_clock_went_ahead_gets_no_more_time_by_that() {
    let (mut agent, by) = setup_after_a_move();
    let now = DAY + HOUR + 2_000;
    move_times(&mut agent, &[by], now);
    assert_eq!(left(&agent, now)[3], Some(29_000));
}

#[test]
fn a_setup_that_began_between_two_moves_gets_the_time_of_the_second_alone() {
    let (mut agent, first) = setup_after_a_move();
    let now = DAY + 2 * HOUR + 2_000;
    move_times(&mut agent, &[first, ahead(HOUR, now)], now);
    assert_eq!(left(&agent, now)[3], Some(29_000));
}

#[test]
fn two_operators_that_see_the_same_move_give_its_time_once_and_a_later_one_is_another() {
    let mut agent = Life { ready_left: 30_000, ..Life::OVER }.agent(DAY);
    let first = ahead(HOUR, DAY + HOUR);
    let now = DAY + HOUR + 1_000;
    let seen_late = ClockMove { at: first.at - SignedDuration::from_millis(700), noticed_at: at(now), ..first };
    let seen_early = ClockMove { at: first.at - SignedDuration::from_millis(20), noticed_at: at(now - 900), ..first };
    for seen in [seen_early, seen_late] {
        move_times(&mut agent, &[seen], now);
        assert_eq!(left(&agent, now)[3], Some(29_000));
    }
    move_times(&mut agent, &[ahead(HOUR, now + HOUR)], now + HOUR);
    assert_eq!(left(&agent, now + HOUR)[3], Some(29_000), "the clock went ahead again");
    let back = now - 2 * HOUR;
    move_times(&mut agent, &[], back);
    let left_then = left(&agent, back)[3];
    move_times(&mut agent, &[ahead(HOUR, back + HOUR)], back + HOUR);
    assert_eq!(left(&agent, back + HOUR)[3], left_then, "and again, to a time that it was before");
}

#[test]
fn a_deadline_that_was_over_when_the_clock_was_set_back_is_over_still_and_one_that_was_written_since_stands() {
    let (mut agent, _) = setup_after_a_move();
    let set_back = DAY + HOUR + 40_000;
    agent.status.heard_at = Some(at(set_back - 1_000));
    agent.status.busy_until = Some(at(set_back - 5_000));
    agent.status.since = at(set_back - 15_000);
    let mut cancelled_since = agent.clone();
    agent.status.cancel_by = Some(at(set_back - 2_000));
    cancelled_since.status.cancel_by = Some(at(set_back - HOUR + 3_000));
    let now = set_back - HOUR + 1_000;
    for agent in [&mut agent, &mut cancelled_since] {
        move_times(agent, &[], now);
    }
    let [_, _, busy, ready, _, cancel] = left(&agent, now);
    assert!(
        [busy, ready, cancel].into_iter().all(|left| left.is_some_and(|left| left < 0)),
        "{busy:?} {ready:?} {cancel:?}"
    );
    assert_eq!(left(&cancelled_since, now)[5], Some(2_000));
}

#[test]
fn a_clock_that_goes_ahead_to_a_time_that_it_was_at_before_takes_no_time() {
    let (mut agent, _) = setup_after_a_move();
    let begun = DAY + HOUR;
    agent.status.heard_at = Some(at(begun));
    move_times(&mut agent, &[ahead(60_000, begun + 60_000)], begun + 60_000);
    move_times(&mut agent, &[], begun + 2_000);
    assert_eq!(agent.status.heard_at, Some(at(begun + 2_000)));
    let again = ClockMove { at: at(begun + 59_900), ..ahead(57_000, begun + 60_100) };
    move_times(&mut agent, &[again], begun + 60_100);
    assert!(agent.status.heard_at >= Some(at(begun + 59_000)), "its program was heard a second ago");
}

#[test]
fn a_message_whose_time_was_over_before_the_clock_went_ahead_and_back_has_no_more_than_its_whole_time() {
    let mut agent = Life { busy: 60, ..Life::OVER }.agent(DAY);
    agent.status.busy_until = Some(at(DAY - 2_000));
    move_times(&mut agent, &[ahead(HOUR, DAY + HOUR)], DAY + HOUR);
    agent.status.heard_at = Some(at(DAY + HOUR + 20_000));
    let now = DAY + 20_500;
    move_times(&mut agent, &[], now);
    let [_, _, busy, ..] = left(&agent, now);
    assert!(busy.is_some_and(|left| left <= 60_000), "{busy:?}");
}

#[test]
fn of_two_moves_that_another_operator_saw_as_one_only_the_second_is_given() {
    let mut agent = Life { ready_left: 30_000, ..Life::OVER }.agent(DAY);
    // This one was over when its program was last heard.
    agent.status.busy_until = Some(at(DAY - 2_000));
    let first = ahead(HOUR, DAY + HOUR);
    let now = DAY + HOUR + 6_000;
    move_times(&mut agent, &[first], DAY + HOUR);
    let both = ClockMove { at: at(now - 100), ..ahead(HOUR + 5_000, now) };
    move_times(&mut agent, &[both], now);
    let [_, _, busy, ready, ..] = left(&agent, now);
    assert!(ready.is_some_and(|left| (28_000..=30_000).contains(&left)), "{ready:?}");
    assert!(busy.is_some_and(|left| left < 0), "it is over still: {busy:?}");
}
