//! How clients call: any server, again where there was no answer, the same key each time; and sometimes they go away.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::chance::Chance;
use super::world::World;
use crate::control::{Call, ControlPlane};
use crate::error::Error;
use crate::principal::Principal;

/// How long a client waits for an answer.
const LIMIT: Duration = Duration::from_secs(25);

#[derive(Clone)]
pub(super) struct Caller {
    pub(super) world: Arc<World>,
    pub(super) number: u64,
    pub(super) principal: Principal,
    pub(super) chance: Arc<Chance>,
}

/// Why a call was not answered as it should.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// There was no answer: it may have been carried out or not.
    Lost(&'static str),
    /// The answer is no.
    Refused(Error),
}

impl Unanswered {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Refused(error) => error.is_retryable(),
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::Refused(error) => write!(f, "{}", error.code()),
        }
    }
}

impl Caller {
    /// Makes a call once.
    pub(super) async fn once<T, F>(
        &self,
        call: Call,
        ask: impl FnOnce(ControlPlane, Call) -> F,
    ) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, Error>>,
    {
        tokio::time::sleep(self.chance.between(0, 3)).await;
        let Some(server) = self.chance.pick(&self.world.servers()).cloned() else {
            return Err(Unanswered::Lost("no server answers"));
        };
        let leaves = self.world.journal().leaving.remove(&self.number);
        if leaves.is_some() {
            self.world.counts().fault("caller gone", 1);
        }
        let mut answer = pin!(ask(server.control, call));
        let mut polls = 0;
        let patient = poll_fn(|context| {
            polls += 1;
            if leaves.is_some_and(|leaves| polls > leaves) {
                return Poll::Ready(None);
            }
            answer.as_mut().poll(context).map(Some)
        });
        tokio::select! {
            biased;
            () = server.dead.cancelled() => Err(Unanswered::Lost("the server is gone")),
            answer = patient => match answer {
                Some(answer) => answer.map_err(Unanswered::Refused),
                None => Err(Unanswered::Lost("the client went away")),
            },
            () = tokio::time::sleep(LIMIT) => Err(Unanswered::Lost("no answer came in time")),
        }
    }

    /// Reads something.
    pub(super) async fn read<T, F>(&self, ask: impl FnOnce(ControlPlane, Call) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.once(Call::by(self.principal.clone()), ask).await
    }

    /// Changes something: with a key again and again until there is an answer, without one just once.
    pub(super) async fn change<T, F>(
        &self,
        what: String,
        key: Option<String>,
        ask: impl Fn(ControlPlane, Call) -> F,
    ) -> Result<T, Unanswered>
    where
        T: PartialEq + fmt::Debug,
        F: Future<Output = Result<T, Error>>,
    {
        let mut first = None;
        let mut tries = if key.is_some() { 6 } else { 1 };
        let answer = loop {
            let mut call = Call::by(self.principal.clone());
            call.idempotency_key.clone_from(&key);
            let answer = self.once(call, &ask).await;
            tries -= 1;
            match answer {
                Ok(answer) => {
                    if let Some(first) = &first
                        && *first != answer
                    {
                        let key = key.unwrap_or_default();
                        self.world.fail(9, format!("{what} under {key} was answered {first:?}, then {answer:?}"));
                        return Ok(answer);
                    }
                    // Who got an answer may still ask again.
                    if tries == 0 || !self.chance.once_in(4) {
                        break Ok(answer);
                    }
                    first = Some(answer);
                }
                Err(error) if tries > 0 && error.is_retryable() => {}
                Err(error) => match first {
                    Some(first) if error.is_retryable() => break Ok(first),
                    Some(_) => {
                        self.world.fail(9, format!("{what} was answered, and then refused: {error}"));
                        break Err(error);
                    }
                    None => break Err(error),
                },
            }
            tokio::time::sleep(self.chance.between(50, 3_000)).await;
        };
        match &answer {
            Ok(_) => self.world.say(format_args!("client-{} {what}: done", self.number)),
            Err(error) => self.world.say(format_args!("client-{} {what}: {error}", self.number)),
        }
        answer
    }
}
