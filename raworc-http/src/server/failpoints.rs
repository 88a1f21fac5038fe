//! Points at which a process that is tested ends or freezes itself, as the variable `FAILPOINT` says.
//!
//! A point stands before and after each commit that does one of the [acts](super::acts), and before and after each call of an
//! engine. `FAILPOINT=accept.after=kill` ends the process, as `kill -9` does, the first time that a message was accepted;
//! `FAILPOINT=engine.start.before=freeze` halts it, as `SIGSTOP` does, until somebody lets it go on. Each is reached once.
//!
//! All of it is behind the feature `failpoints`; without it there is no point and no call.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// The one point that is wanted.
static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| Wanted::parse(&std::env::var("FAILPOINT").ok()?));

#[derive(Debug)]
struct Wanted {
    point: String,
    signal: Signal,
    reached: AtomicBool,
}

impl Wanted {
    /// None where the text is no point and what is to be done there.
    fn parse(text: &str) -> Option<Self> {
        let (point, what) = text.split_once('=')?;
        let signal = match what {
            "kill" => Signal::KILL,
            "freeze" => Signal::STOP,
            _ => return None,
        };
        Some(Self { point: point.to_owned(), signal, reached: AtomicBool::new(false) })
    }

    /// Whether this is the point, for the first time.
    fn is_at(&self, what: &str, when: &str) -> bool {
        let (act, moment) = self.point.rsplit_once('.').unwrap_or_default();
        act == what && moment == when && !self.reached.swap(true, Ordering::SeqCst)
    }
}

/// Before these acts.
pub(crate) fn before(acts: &[&str]) {
    reach(acts, "before");
}

/// After these acts, of which nobody has been told yet.
pub(crate) fn after(acts: &[&str]) {
    reach(acts, "after");
}

fn reach(acts: &[&str], when: &str) {
    let Some(wanted) = &*WANTED else { return };
    if !acts.iter().any(|act| wanted.is_at(act, when)) {
        return;
    }
    if let Err(error) = kill_process(getpid(), wanted.signal) {
        tracing::error!(%error, "the process cannot send itself a signal");
    }
    if wanted.signal == Signal::KILL {
        // It may come a moment later, and until then nothing may go on.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_reached_once_and_by_its_own_act_and_moment_alone() {
        let wanted = Wanted::parse("engine.start.before=kill").expect("a point");
        assert!(!wanted.is_at("engine.start", "after"));
        assert!(!wanted.is_at("engine.stop", "before"));
        assert!(wanted.is_at("engine.start", "before"));
        assert!(!wanted.is_at("engine.start", "before"));
        assert_eq!(wanted.signal, Signal::KILL);
    }

    #[test]
    fn what_is_no_point_is_none() {
        assert!(Wanted::parse("accept.before").is_none());
        assert!(Wanted::parse("accept.before=panic").is_none());
    }
}
