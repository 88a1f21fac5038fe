//! `raworc quickstart`: one agent's day, with every claim checked before it is made.

mod processes;
mod story;

use std::time::Duration;

use anyhow::Context as _;
use raworc_core::agent::{Agent, AgentSpec, NetworkMode, State};
use raworc_core::control::{CreateAgent, SendMessage};
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::AgentName;
use raworc_core::runtime::Phase;
use raworc_http::client::{Ask, Client};
use tokio::time::Instant;

use self::processes::Processes;
use self::story::Story;
use super::agent::check_up;
use super::context::now;
use super::up::{self, AskedToEnd};
use super::work::{Work, failure};
use crate::args::QuickstartArgs;
use crate::duration::age;
use crate::exit::{Exit, Failure};
use crate::installation::{Installation, Role};
use crate::logging;
use crate::output::Console;
use crate::settings::{LogFormat, Settings};

/// How long an agent may take to come up or to fall asleep before the tour gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the agent keeps a line for each tour.
const DIARY: &str = "diary.txt";

/// The label of the tour's own agent.
const LABEL: &str = "raworc-quickstart";

/// Tells the story.
///
/// # Errors
/// Where something is in the way, or a claim does not hold.
pub async fn run(console: &Console, args: QuickstartArgs) -> anyhow::Result<()> {
    let mut settings = Settings::load(&args.assembly)?;
    if args.assembly.log.is_none() && std::env::var_os("RAWORC_LOG").is_none() {
        // The story is not to be drowned; what goes wrong still shows. Of a model that does not answer it tells itself.
        settings.log = "warn,raworc_http::server::agents::gateway=error".to_owned();
    }
    if settings.log_format == LogFormat::Auto {
        // It is for people, wherever they read it.
        settings.log_format = LogFormat::Text;
    }
    logging::start(&settings, Role::Both, console)?;
    let story = Story::new(console);
    story.title(&settings)?;
    let progress = console.progress("starting the server");
    let installation = Installation::start(settings, Role::Both, &|what| progress.tell(console, what)).await?;
    drop(progress);
    // Whoever takes the tour is logged in; the password lies in a file for later.
    let admin = installation.ensure_first_admin(false).await?;
    let login =
        installation.log_in().await?.context("there is no admin to take the tour as; name them by RAWORC_ADMIN")?;
    story.started(&installation, admin.as_ref())?;
    let url = installation.url().context("the server has no address")?;
    let client = Client::new(&url)?.with_token(login.token);
    let name = match args.agent {
        Some(name) => name,
        None => AgentName::new("quickstart")?,
    };
    let mut tour = Tour { console, story, installation: &installation, client, name };
    let told = tokio::select! {
        told = tour.tell(args.no_model) => told,
        pressed = tokio::signal::ctrl_c() => pressed.map_err(Into::into).and(Err(crate::exit::Silent(130).into())),
    };
    let Tour { story, name, client, .. } = tour;
    match told {
        Ok(()) if args.exit => {
            story.ended(&installation)?;
            leave(&client, &name).await;
            installation.shutdown().await;
            Ok(())
        }
        Ok(()) => {
            story.stays(&installation, &name)?;
            up::serve(console, installation, AskedToEnd::listen()?).await
        }
        Err(error) => {
            leave(&client, &name).await;
            installation.shutdown().await;
            Err(error)
        }
    }
}

/// Puts the tour's agent to sleep: a container would go on without a server.
async fn leave(client: &Client, name: &AgentName) {
    if let Err(error) = client.sleep(name, true, Ask::new().wait(PATIENCE)).await {
        tracing::debug!(%error, "the tour's agent was not put to sleep");
    }
}

struct Tour<'a> {
    console: &'a Console,
    story: Story<'a>,
    installation: &'a Installation,
    client: Client,
    name: AgentName,
}

impl Tour<'_> {
    async fn tell(&mut self, no_model: bool) -> anyhow::Result<()> {
        self.meet().await?;
        let entry = format!("entry {}", &SystemEntropy.uuid(now()).simple().to_string()[20..]);
        let before = self.give_work(&entry).await?;
        let processes = self.start_something().await?;
        let slept = self.put_to_sleep(&processes).await?;
        self.wake_by_message(&entry, &before, &slept).await?;
        if !no_model {
            self.task_in_words().await?;
        }
        Ok(())
    }

    /// Makes the agent, or finds the one of an earlier tour.
    async fn meet(&mut self) -> anyhow::Result<()> {
        let there = self.client.all_agents(None, &LABEL.parse()?).await?;
        let began = Instant::now();
        if let Some(agent) = there.into_iter().find(|agent| agent.name == self.name) {
            self.story.chapter("An agent is there from an earlier run")?;
            self.story.command(&format!("agent wake {}", self.name))?;
            self.story.fact(&format!(
                "{} was made {} ago, has been started {} times, and is {} now",
                self.name,
                age(agent.created_at, now()),
                agent.status.incarnation,
                agent.status.state()
            ))?;
            let progress = self.console.progress(format!("waking {}", self.name));
            let agent = self.client.wake(&self.name, true, Ask::new().wait(PATIENCE)).await?;
            drop(progress);
            check_up(&agent, PATIENCE)?;
            return self.up(&agent, began);
        }
        self.story.chapter("Make an agent: a computer of its own, and a program in it that takes messages")?;
        let mut spec = AgentSpec::default();
        // On an engine elsewhere the link goes over the network.
        let runtimes = self.installation.control().runtimes();
        let network = if runtimes.first().is_some_and(|(_, able)| !able.closed_network) {
            spec.network.mode = NetworkMode::Open;
            " --network open"
        } else {
            ""
        };
        self.story.command(&format!("agent create {}{network} --wait", self.name))?;
        spec.labels.insert(LABEL.to_owned(), String::new());
        spec.description = Some("made by raworc quickstart".to_owned());
        let request = CreateAgent { name: self.name.clone(), spec };
        let progress = self.console.progress(format!("{} is getting ready", self.name));
        let agent = self.client.create_agent(&request, Ask::new().wait(PATIENCE)).await?;
        drop(progress);
        check_up(&agent, PATIENCE)?;
        self.up(&agent, began)
    }

    fn up(&self, agent: &Agent, began: Instant) -> anyhow::Result<()> {
        self.story.proof(&format!(
            "{} is {} after {:.1?}; this is start number {} of its computer",
            self.name,
            agent.status.state(),
            began.elapsed(),
            agent.status.incarnation
        ))
    }

    /// Has the agent write a file, and returns what is in it.
    async fn give_work(&mut self, entry: &str) -> anyhow::Result<String> {
        self.story.chapter("Give it work. A message that begins with ! is a shell command and needs no model")?;
        self.send(&format!("!echo {entry} >> {DIARY}; uname -sm; id -un; pwd; ls -x /")).await?;
        let diary = self.send(&format!("!cat {DIARY}")).await?;
        self.hold(diary.contains(entry), || format!("{DIARY} does not hold {entry:?}: {diary:?}"))?;
        let lines = diary.lines().filter(|line| line.starts_with("entry ")).count();
        let earlier = if lines > 1 { format!(", below {} of earlier runs", lines - 1) } else { String::new() };
        self.story.proof(&format!("{DIARY} holds what was just written{earlier}"))?;
        Ok(diary)
    }

    /// Has the agent start a process that goes on by itself, and returns all that run in its computer.
    async fn start_something(&mut self) -> anyhow::Result<Processes> {
        self.story.chapter("Let it start something that goes on in the background")?;
        // Forked twice and in a session of its own: nothing but the computer's end ends it.
        let seconds = 31_000_000 + u32::from_le_bytes(SystemEntropy.bytes()) % 1_000_000;
        let sleeper = format!("sleep {seconds}");
        self.send(&format!("!(setsid {sleeper} </dev/null >/dev/null 2>&1 &); echo it runs")).await?;
        let agent = self.client.agent(&self.name).await?;
        let start = agent.status.run.and_then(|run| run.start_id).context("the computer's start is not known")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let seen = Processes::of(&start, &sleeper)?;
            if seen.includes(&sleeper) {
                self.story.proof(&format!("{} processes of its computer run on this machine:", seen.len()))?;
                seen.lines().iter().try_for_each(|line| self.story.detail(line))?;
                return Ok(seen);
            }
            self.hold(Instant::now() < deadline, || format!("{sleeper:?} is not among the processes: {seen:?}"))?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Puts the agent to sleep, and proves that nothing of it runs.
    async fn put_to_sleep(&mut self, processes: &Processes) -> anyhow::Result<Agent> {
        self.story.chapter("Put it to sleep: its computer stops, its files stay")?;
        self.story.command(&format!("agent sleep {}", self.name))?;
        let began = Instant::now();
        let progress = self.console.progress(format!("putting {} to sleep", self.name));
        let agent = self.client.sleep(&self.name, false, Ask::new().wait(PATIENCE)).await?;
        drop(progress);
        let took = began.elapsed();
        let status = &agent.status;
        let asleep = status.state() == State::Slept && status.run.is_none();
        self.hold(asleep, || format!("{} is {} still", self.name, status.state()))?;
        self.story.proof(&format!("{} sleeps after {took:.1?}", self.name))?;
        let left = processes.left()?;
        self.hold(left.is_empty(), || format!("these processes are left: {}", left.join("; ")))?;
        self.story.proof(&format!(
            "none of those {} processes is left (each was looked up in /proc by its number and start time)",
            processes.len()
        ))?;
        let computer = status.computer.context("the agent has no computer")?;
        let runtime = agent.spec.runtime.as_ref().and_then(|name| self.installation.runtime(name));
        let observed = runtime.context("the agent's runtime is not known")?.observe(computer).await?;
        let stopped = matches!(observed.as_ref().map(|seen| &seen.phase), Some(Phase::Stopped { .. }));
        self.hold(stopped, || format!("the runtime says {observed:?}"))?;
        self.story.proof("the runtime says the same: the computer is there, and stopped")?;
        Ok(agent)
    }

    /// Wakes the agent by a message, and proves that it has every file in a new start.
    async fn wake_by_message(&mut self, entry: &str, before: &str, slept: &Agent) -> anyhow::Result<()> {
        self.story.chapter("Send it a message: that wakes it")?;
        let diary = self.send(&format!("!cat {DIARY}")).await?;
        self.hold(diary.contains(entry) && diary == before, || {
            format!("{DIARY} was {before:?} before the sleep and is {diary:?} after it")
        })?;
        self.story.proof(&format!("{DIARY} is there, the same to the letter"))?;
        let agent = self.client.agent(&self.name).await?;
        let (one, other) = (slept.status.incarnation, agent.status.incarnation);
        self.hold(other > one, || format!("the incarnation was {one} and is {other}"))?;
        self.story.proof(&format!("the same computer was started anew: start {one} has become start {other}"))?;
        let kept = agent.status.computer == slept.status.computer && agent.id == slept.id;
        self.hold(kept, || "the agent has another computer".to_owned())
    }

    /// Gives the agent a task in words, where a model answers.
    async fn task_in_words(&mut self) -> anyhow::Result<()> {
        self.story.chapter("Give it a task in words")?;
        let progress = self.console.progress("asking whether a model answers");
        let answers = self.installation.model_answers().await;
        drop(progress);
        if let Err(why) = answers {
            return self.story.no_model(self.installation.settings(), &why);
        }
        let task = "Count from one to five, one number a line, into the file numbers.txt. Then read the file and tell me \
                    what is in it.";
        self.story.command(&format!("send {} '{task}'", self.name))?;
        let work =
            Work::begin(&self.client, self.console, &self.name, &SendMessage::text(task), Ask::new(), true).await?;
        let mut work = work.indented("  ");
        let ended = work.finish().await?;
        if let Err(error) = work.conclude(&ended) {
            // The model's failure, and not Raworc's: it is told and the tour ends well.
            return self.story.fact(&format!("the model did not manage it: {error}"));
        }
        Ok(())
    }

    /// Sends a command, shows the work as it happens, and returns the answer.
    async fn send(&mut self, text: &str) -> anyhow::Result<String> {
        self.story.command(&format!("send {} {}", self.name, story::quoted(text)))?;
        let request = SendMessage::text(text);
        let work = Work::begin(&self.client, self.console, &self.name, &request, Ask::new(), true).await?;
        let mut work = work.indented("  ");
        let ended = work.finish().await?;
        match ended.reply {
            Some(reply) => {
                self.story.answer(&reply.text())?;
                Ok(reply.text())
            }
            None => Err(failure(&ended.message, &self.name).into()),
        }
    }

    /// Ends the tour where a claim does not hold.
    fn hold(&self, claim: bool, otherwise: impl FnOnce() -> String) -> anyhow::Result<()> {
        if claim {
            return Ok(());
        }
        let failure = Failure::new(Exit::Failed, format!("what the tour shows does not hold here: {}", otherwise()));
        Err(failure.hint("this should not be; please report it with the lines above").into())
    }
}
