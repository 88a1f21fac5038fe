//! How a simulated program reaches its servers: one line for each call.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::control::ControlPlane;
use crate::error::Error;
use crate::ids::{ComputerId, Incarnation};
use crate::store::StoreError;

tokio::task_local! {
    /// The program on whose behalf a server works: what watches the store asks for it.
    pub(crate) static PROGRAM: (ComputerId, Incarnation);
}

/// The way from computers to servers.
#[async_trait]
pub trait Uplink: Send + Sync {
    /// A line for the next call of the program in this computer; none where it reaches no server now.
    async fn dial(&self, from: ComputerId) -> Option<Line>;

    /// Returns when the program in this computer hears an answer that has arrived.
    async fn hear(&self, from: ComputerId);
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It is answered.
    #[default]
    Answered,
    /// It does not arrive.
    RequestLost,
    /// It is carried out, and its answer does not arrive.
    AnswerLost,
    /// It arrives twice, and the first answer counts.
    Doubled,
}

/// A line to a server for one call.
#[derive(Debug)]
pub struct Line {
    /// The server.
    pub control: ControlPlane,
    /// Cancelled when the line breaks. What the server was doing for it is dropped then.
    pub broken: CancellationToken,
    /// What becomes of the call.
    pub fate: Fate,
    /// How long the program waits for the answer; for ever where absent.
    pub limit: Option<Duration>,
}

impl Line {
    /// A line to this server that never breaks.
    #[must_use]
    pub fn to(control: ControlPlane) -> Self {
        Self { control, broken: CancellationToken::new(), fate: Fate::Answered, limit: None }
    }

    /// Makes one call over the line.
    pub(super) async fn carry<T, F>(
        self,
        program: (ComputerId, Incarnation),
        call: impl Fn(ControlPlane) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.fate == Fate::RequestLost {
            return Err(unreachable("the request was lost"));
        }
        let calls = async {
            let first = call(self.control.clone()).await;
            match self.fate {
                Fate::AnswerLost => return Err(unreachable("the answer was lost")),
                Fate::Doubled => drop(call(self.control.clone()).await),
                Fate::Answered | Fate::RequestLost => {}
            }
            first
        };
        let limit = async {
            match self.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.broken.cancelled() => Err(unreachable("the line broke")),
            answer = PROGRAM.scope(program, calls) => answer,
            () = limit => Err(unreachable("no answer came in time")),
        }
    }
}

/// What a program is told where no server answers: the same call may succeed later.
pub(super) fn unreachable(reason: &str) -> Error {
    Error::Store(StoreError::Unavailable { reason: reason.into() })
}

/// The way to one server in this process.
pub(super) struct Direct(pub(super) ControlPlane);

#[async_trait]
impl Uplink for Direct {
    async fn dial(&self, _from: ComputerId) -> Option<Line> {
        Some(Line::to(self.0.clone()))
    }

    async fn hear(&self, _from: ComputerId) {}
}
