//! What stands between a runtime and its engine, and answers in the engine's place where a test wants it to.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};

/// What becomes of a call.
pub(crate) enum Fate {
    /// The engine has it.
    Passed,
    /// It is answered with this status and this JSON.
    Answered(u16, String),
    /// The connection is closed without an answer.
    Cut,
    /// It is never answered.
    Unanswered,
}

/// Passes calls on, until it is dropped.
pub(crate) struct Between {
    directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Between {
    /// Stands before the engine at this socket. `decide` is told the first line of each call.
    pub(crate) fn deciding<F>(engine: &str, decide: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Fate> + Send + 'static,
    {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("engine.sock")).expect("bound");
        let (engine, decide) = (engine.to_owned(), Arc::new(decide));
        let task = tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let (engine, decide) = (engine.clone(), decide.clone());
                tokio::spawn(async move {
                    // One call a connection: the runtime keeps none open.
                    let mut begun = vec![0; 4096];
                    let read = caller.read(&mut begun).await.expect("read");
                    let line = String::from_utf8_lossy(&begun[..read]).lines().next().unwrap_or_default().to_owned();
                    match decide(line).await {
                        Fate::Passed => {}
                        Fate::Answered(status, body) => {
                            let head = format!("HTTP/1.1 {status} Decided\r\nContent-Type: application/json");
                            let length = body.len();
                            let answer =
                                format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
                            caller.write_all(answer.as_bytes()).await.expect("written");
                            return;
                        }
                        Fate::Cut => return,
                        Fate::Unanswered => {
                            // Until the caller has enough of it.
                            let _ = caller.read_to_end(&mut begun).await;
                            return;
                        }
                    }
                    let mut engine = UnixStream::connect(engine).await.expect("an engine");
                    engine.write_all(&begun[..read]).await.expect("written");
                    // Either side may end as it likes.
                    let _ = copy_bidirectional(&mut caller, &mut engine).await;
                });
            }
        });
        Self { directory, task }
    }

    /// Passes calls on to the engine at this socket, but for the first `times` whose first line `is_meant`: those are
    /// answered with status 500 and this message. Counts those that were meant.
    pub(crate) fn refusing(
        engine: &str,
        times: usize,
        is_meant: fn(&str) -> bool,
        message: &'static str,
    ) -> (Self, Arc<AtomicUsize>) {
        let count = Arc::<AtomicUsize>::default();
        let counted = count.clone();
        let between = Self::deciding(engine, move |line| {
            let is_refused = is_meant(&line) && counted.fetch_add(1, Ordering::SeqCst) < times;
            let fate = match is_refused {
                true => Fate::Answered(500, format!(r#"{{"message":"{message}"}}"#)),
                false => Fate::Passed,
            };
            std::future::ready(fate)
        });
        (between, count)
    }

    /// Where it is called.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("engine.sock").display())
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}
