//! A process that is killed, frozen and looked at, whatever it is.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// What `raworc store verify` says is wrong, as this command runs it.
pub(crate) async fn unsound(mut verify: Command) -> Vec<String> {
    match verify.output().await {
        Ok(output) if output.status.success() => Vec::new(),
        Ok(output) => {
            vec![[output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()]
        }
        Err(error) => vec![format!("it was not looked at: {error}")],
    }
}

/// The process that runs, if one does.
#[derive(Debug, Default)]
pub(crate) struct Process(Mutex<Option<Child>>);

impl Process {
    /// Takes this one for the process. It may be looked at, and killed, before it serves.
    pub(crate) async fn hold(&self, child: Child) {
        *self.0.lock().await = Some(child);
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(&self) {
        if let Some(mut child) = self.0.lock().await.take() {
            let _ = child.kill().await;
        }
    }

    pub(crate) async fn pid(&self) -> Option<Pid> {
        let child = self.0.lock().await;
        Pid::from_raw(i32::try_from(child.as_ref()?.id()?).ok()?)
    }

    pub(crate) async fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().await {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it is halted.
    pub(crate) async fn is_halted(&self) -> bool {
        self.0.lock().await.as_ref().and_then(Child::id).is_some_and(crate::machine::is_halted)
    }

    /// How it ended by itself, if it has.
    pub(crate) async fn ended(&self) -> Option<ExitStatus> {
        self.0.lock().await.as_mut()?.try_wait().ok()?
    }

    /// Asks it to end, and waits for that. Says what is wrong with the end of `who`.
    pub(crate) async fn end(&self, who: &str, limit: Duration) -> Result<(), String> {
        self.signal(Signal::TERM).await;
        let Some(mut child) = self.0.lock().await.take() else { return Err(format!("{who} ran no more")) };
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => Err(format!("{who} ended with {status:?}")),
            Err(_) => Err(format!("{who} did not end within {limit:?}")),
        }
    }
}
