//! How the tour is told.

use raworc_core::ids::AgentName;

use crate::installation::{FirstAdmin, Installation, Password};
use crate::output::{Console, Ink, talk};
use crate::settings::Settings;

/// Lines of an answer that are shown.
const ANSWER: usize = 16;

/// The story, told on standard output.
#[derive(Debug)]
pub(super) struct Story<'a> {
    console: &'a Console,
    chapters: usize,
}

impl<'a> Story<'a> {
    pub(super) const fn new(console: &'a Console) -> Self {
        Self { console, chapters: 0 }
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        self.console.out.paint(ink, text)
    }

    pub(super) fn title(&self, settings: &Settings) -> anyhow::Result<()> {
        let title = self.paint(Ink::Bold, &format!("Raworc {} quickstart", env!("CARGO_PKG_VERSION")));
        let again = if settings.data.join("raworc.db").exists() { ", carried on with" } else { ", new" };
        self.console.line(format!(
            "{title}\n\nEverything runs in this one process: server and operator, on SQLite unless the configuration names a\n\
             database. Agents' computers are containers where a Docker engine answers, and else made of this\n\
             machine's own Linux.\n\n  data     {}{again}",
            settings.data.display()
        ))
    }

    pub(super) fn started(&self, installation: &Installation, admin: Option<&FirstAdmin>) -> anyhow::Result<()> {
        self.console.line(format!("  server   {}", installation.url().unwrap_or_default()))?;
        self.console.line(format!("  runtime  {}", installation.computers()))?;
        if let Some(FirstAdmin { name, password: Password::Written(path) }) = admin {
            self.console.line(format!("  admin    {name}, password in {}", path.display()))?;
        }
        self.console.line("  you      are logged in by this run; `raworc` commands work in another terminal")
    }

    pub(super) fn chapter(&mut self, title: &str) -> anyhow::Result<()> {
        self.chapters += 1;
        self.console.line(format!("\n{}", self.paint(Ink::Bold, &format!("{}. {title}", self.chapters))))
    }

    /// The command that does the same by hand.
    pub(super) fn command(&self, command: &str) -> anyhow::Result<()> {
        self.console.line(format!("   {}", self.paint(Ink::Cyan, &format!("$ raworc {command}"))))
    }

    /// A claim that was checked.
    pub(super) fn proof(&self, claim: &str) -> anyhow::Result<()> {
        self.console.line(format!("   {} {claim}", self.paint(Ink::Green, "ok")))
    }

    pub(super) fn fact(&self, fact: &str) -> anyhow::Result<()> {
        self.console.line(format!("   {fact}"))
    }

    pub(super) fn detail(&self, line: &str) -> anyhow::Result<()> {
        self.console.line(format!("      {}", self.paint(Ink::Dim, &talk::printable(line))))
    }

    pub(super) fn answer(&self, text: &str) -> anyhow::Result<()> {
        let clean = talk::printable(text.trim_end());
        let lines: Vec<_> = clean.lines().collect();
        for line in lines.iter().take(ANSWER) {
            self.console.line(format!("   {line}").trim_end())?;
        }
        match lines.len().saturating_sub(ANSWER) {
            0 => Ok(()),
            more => self.detail(&format!("({more} lines more)")),
        }
    }

    pub(super) fn no_model(&self, settings: &Settings, why: &str) -> anyhow::Result<()> {
        let Some(model) = settings.all_models().next() else {
            return self.fact("no model is configured, so this is left out");
        };
        self.fact(&format!("left out: the model {} at {} does not answer ({why})", model.name, model.url))?;
        self.fact("With Ollama: ollama pull gpt-oss:20b. With another one: RAWORC_MODEL__URL, RAWORC_MODEL__NAME and")?;
        self.fact("RAWORC_MODEL__WIRE=openai for whatever speaks OpenAI's API. Then run this again.")
    }

    pub(super) fn stays(&self, installation: &Installation, name: &AgentName) -> anyhow::Result<()> {
        let command = |text: &str| self.paint(Ink::Cyan, &format!("{} {text}", program()));
        self.console.line(format!(
            "\n{}\n  {}\n  {}\n  {}\n  {}\n\nThe server stays up at {}. Ctrl-C ends it; `{} up` starts it again with the same data.",
            self.paint(Ink::Bold, "What to try next, in another terminal"),
            command(&format!("chat {name}")),
            command(&format!("agent explain {name}")),
            command(&format!("agent exec -it {name} -- bash")),
            command("events --follow"),
            installation.url().unwrap_or_default(),
            program(),
        ))
    }

    pub(super) fn ended(&self, installation: &Installation) -> anyhow::Result<()> {
        self.console.line(format!(
            "\nAll of it held. The server ends now; `{} up` starts it again with the data in {}.",
            program(),
            installation.settings().data.display()
        ))
    }
}

/// How this binary is called from here: by its path where it is below the working directory, as after `cargo run`.
fn program() -> String {
    let here = std::env::current_dir().ok();
    let own = std::env::current_exe().ok();
    match (here, own) {
        (Some(here), Some(own)) => match own.strip_prefix(&here) {
            Ok(below) => below.display().to_string(),
            Err(_) => "raworc".to_owned(),
        },
        _ => "raworc".to_owned(),
    }
}

/// The text as a shell takes it for one word.
pub(super) fn quoted(text: &str) -> String {
    if text.contains('\'') {
        // An exclamation mark in double quotes would be taken for a history expansion.
        format!("'{}'", text.replace('\'', "'\\''"))
    } else {
        format!("'{text}'")
    }
}
