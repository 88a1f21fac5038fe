//! A spinner for whatever takes longer than half a second, on a terminal alone.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::Console;

/// What is over sooner than this shows no spinner.
const PATIENCE: Duration = Duration::from_millis(500);

const TICK: Duration = Duration::from_millis(100);

/// Shows that something goes on until it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    shown: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(visible: bool, what: String) -> Self {
        let bar = ProgressBar::hidden();
        bar.set_message(what);
        let shown = visible.then(|| {
            let bar = bar.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
                    bar.set_style(style);
                }
                bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
                bar.enable_steady_tick(TICK);
            })
        });
        Self { bar, shown }
    }

    /// Says what goes on now, in a line of its own where no spinner shows it.
    pub fn tell(&self, console: &Console, what: String) {
        if self.shown.is_none() {
            console.note(&what);
        }
        self.bar.set_message(what);
    }

    /// Whether anybody sees what is said.
    #[must_use]
    pub const fn is_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Says what goes on now.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(shown) = &self.shown {
            shown.abort();
        }
        self.bar.finish_and_clear();
    }
}
