//! One message, from the moment it is sent to its end.

use anyhow::Context as _;
use futures::StreamExt;
use raworc_core::agent::Agent;
use raworc_core::control::SendMessage;
use raworc_core::event::{Event, EventKind};
use raworc_core::ids::{AgentName, MessageId};
use raworc_core::message::{Message, MessageState};
use raworc_http::client::{Ask, Client, EventStream, Told};

use crate::exit::{Exit, Failure};
use crate::output::agent::obstacle;
use crate::output::{Console, Progress, Transcript, talk};

/// A message that was accepted and is followed.
pub struct Work {
    client: Client,
    name: AgentName,
    console: Console,
    message: Message,
    told: EventStream,
    transcript: Transcript,
    last_step: u64,
    waiting: Option<Progress>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("message", &self.message.id).finish_non_exhaustive()
    }
}

/// How a message ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ended {
    /// The message.
    pub message: Message,
    /// The answer, where there is one.
    pub reply: Option<Message>,
}

impl Work {
    /// Sends a message and follows it.
    ///
    /// # Errors
    /// Where it is not accepted.
    pub async fn begin(
        client: &Client,
        console: &Console,
        name: &AgentName,
        request: &SendMessage,
        ask: Ask,
        steps: bool,
    ) -> anyhow::Result<Self> {
        // From before the message, so that nothing of it is missed. Not from the agent's last change: one that has slept for
        // long is older than the log.
        let told = client.follow(Some(name), None).await?;
        let agent = client.agent(name).await?;
        let message = client.send(name, request, ask).await?;
        let transcript = Transcript::of(&message, console, steps);
        let mut work = Self {
            client: client.clone(),
            name: name.clone(),
            console: console.clone(),
            message,
            told,
            transcript,
            last_step: 0,
            waiting: None,
        };
        work.wait_for(&waits_for(&agent));
        Ok(work)
    }

    /// With steps set in.
    #[must_use]
    pub fn indented(mut self, indent: &'static str) -> Self {
        self.transcript = self.transcript.indented(indent);
        self
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.message.id
    }

    /// Shows what happens until the message has ended, and the answer. It may be dropped and called again.
    ///
    /// # Errors
    /// Where the server is lost for good.
    pub async fn finish(&mut self) -> anyhow::Result<Ended> {
        // It may have ended already, and the stream tells that no more: it was sent under its key long ago, or this was
        // dropped while it read how the message had ended.
        if !self.message.state.is_ended() {
            self.message = self.client.message(&self.name, self.message.id, None).await?;
        }
        while !self.message.state.is_ended() {
            let told = match self.told.next().await.context("the server ended the stream; the work goes on")? {
                Err(error) if error.code == "gone" => {
                    self.follow_anew().await?;
                    continue;
                }
                told => told?,
            };
            match told {
                Told::Delta(delta) if delta.message == self.message.id => {
                    self.waiting = None;
                    self.transcript.delta(&delta.text)?;
                }
                Told::Delta(_) => {}
                Told::Event(event) => self.on_event(&event).await?,
            }
        }
        self.show_steps().await?;
        self.waiting = None;
        let reply = self.client.reply_to(&self.name, &self.message).await?;
        Ok(Ended { message: self.message.clone(), reply })
    }

    /// Goes on from now on where it was away for longer than the log goes back, and reads what it has missed.
    async fn follow_anew(&mut self) -> anyhow::Result<()> {
        self.told = self.client.follow(Some(&self.name), None).await?;
        self.message = self.client.message(&self.name, self.message.id, None).await?;
        self.show_steps().await
    }

    async fn on_event(&mut self, event: &Event) -> anyhow::Result<()> {
        if matches!(event.kind, EventKind::AgentState | EventKind::AgentStatus) {
            self.show_obstacle().await;
        }
        if event.message == Some(self.message.id) {
            match event.kind {
                EventKind::StepsAdded => self.show_steps().await?,
                EventKind::MessageState => {
                    self.message = self.client.message(&self.name, self.message.id, None).await?;
                    // By the event: until the message is read, it may be at work again, or done.
                    if is_taken_up_again(event) {
                        self.waiting = None;
                        self.transcript.break_off()?;
                        self.console.note("  # the computer was lost; the message is taken up again");
                    }
                    self.wait_for("working");
                }
                EventKind::MessageCancel => self.wait_for("cancelling"),
                _ => {}
            }
        }
        Ok(())
    }

    async fn show_steps(&mut self) -> anyhow::Result<()> {
        let steps = self.client.all_steps(&self.name, Some(self.message.id), self.last_step).await?;
        for step in steps {
            self.waiting = None;
            self.last_step = step.seq;
            self.transcript.step(&step)?;
        }
        if !self.message.state.is_ended() {
            self.wait_for("working");
        }
        Ok(())
    }

    /// Says what keeps the agent from being up, to a person who waits for it.
    async fn show_obstacle(&mut self) {
        if self.waiting.as_ref().is_some_and(Progress::is_shown)
            && let Ok(agent) = self.client.agent(&self.name).await
            && !agent.status.state().is_up()
        {
            self.wait_for(&waits_for(&agent));
        }
    }

    fn wait_for(&mut self, what: &str) {
        let text = format!("{} is {what}", self.name);
        match &self.waiting {
            Some(waiting) => waiting.say(text),
            None => self.waiting = Some(self.console.progress(text)),
        }
    }

    /// Shows the answer, or says why there is none.
    ///
    /// # Errors
    /// [`Exit::WorkFailed`] where the message failed or was cancelled.
    pub fn conclude(&mut self, ended: &Ended) -> anyhow::Result<()> {
        match ended.message.state {
            MessageState::Failed | MessageState::Cancelled => {
                self.transcript.break_off()?;
                Err(failure(&ended.message, &self.name).into())
            }
            MessageState::Done | MessageState::Queued | MessageState::Leased | MessageState::Parked => {
                match &ended.reply {
                    Some(reply) => self.transcript.answer(&reply.text()),
                    None => self.transcript.break_off(),
                }
            }
        }
    }
}

/// What an agent does while somebody waits for its work.
fn waits_for(agent: &Agent) -> String {
    match obstacle(agent) {
        Some(obstacle) => format!("waking: {obstacle}"),
        None if agent.status.state().is_up() => "working".into(),
        None => "waking".into(),
    }
}

/// Whether an event tells that a message goes back into the queue after an attempt at it.
fn is_taken_up_again(event: &Event) -> bool {
    let queued = event.summary["to"] == MessageState::Queued.as_str();
    queued && event.summary["attempt"].as_u64().is_some_and(|attempt| attempt > 0)
}

/// Why a message came to no answer.
#[must_use]
pub fn failure(message: &Message, name: &AgentName) -> Failure {
    let why = message.reason.as_deref().map(talk::printable);
    let why = why.filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
    let failure = Failure::new(Exit::WorkFailed, format!("message {} {}{why}", message.seq, ended_word(message.state)));
    match message.state {
        MessageState::Failed => failure.hint(format!("`raworc history {name} --steps` shows what was done")),
        _ => failure,
    }
}

const fn ended_word(state: MessageState) -> &'static str {
    match state {
        MessageState::Failed => "failed",
        MessageState::Cancelled => "was cancelled",
        MessageState::Done => "is done",
        MessageState::Queued | MessageState::Leased | MessageState::Parked => "has not ended",
    }
}
