//! What stands between a runtime and its engine, and answers in the engine's place where a test wants it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};

/// Passes calls on, until it is dropped.
pub(crate) struct Between {
    directory: tempfile::TempDir,
    answered: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Between {
    /// Passes calls on to the engine at this socket, but for the first `times` whose first line `is_meant`: those are
    /// answered with status 500 and this message.
    pub(crate) fn refusing(
        engine: &str,
        times: usize,
        is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
        message: &str,
    ) -> Self {
        let body = format!(r#"{{"message":"{message}"}}"#);
        Self::answering(engine, times, is_meant, "500 Internal Server Error", &body)
    }

    /// The same with another status and body.
    pub(crate) fn answering(
        engine: &str,
        times: usize,
        is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
        status: &str,
        body: &str,
    ) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close");
        let answer: Arc<str> = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into();
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("engine.sock")).expect("bound");
        let answered = Arc::<AtomicUsize>::default();
        let (engine, count, is_meant) = (engine.to_owned(), answered.clone(), Arc::new(is_meant));
        let task = tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let (engine, count, is_meant, answer) =
                    (engine.clone(), count.clone(), is_meant.clone(), answer.clone());
                tokio::spawn(async move {
                    // One call a connection: the runtime keeps none open.
                    let mut begun = vec![0; 4096];
                    let read = caller.read(&mut begun).await.expect("read");
                    let line = String::from_utf8_lossy(&begun[..read]).lines().next().unwrap_or_default().to_owned();
                    if is_meant(&line) && count.fetch_add(1, Ordering::SeqCst) < times {
                        caller.write_all(answer.as_bytes()).await.expect("written");
                        return;
                    }
                    let mut engine = UnixStream::connect(engine).await.expect("an engine");
                    engine.write_all(&begun[..read]).await.expect("written");
                    // Either side may end as it likes.
                    let _ = copy_bidirectional(&mut caller, &mut engine).await;
                });
            }
        });
        Self { directory, answered, task }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> String {
        self.directory.path().join("engine.sock").display().to_string()
    }

    /// Where it is called.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket())
    }

    /// Calls that were meant so far.
    pub(crate) fn meant(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}
