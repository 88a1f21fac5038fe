//! The client, a server, its agents' listener, and a program that is played by the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body as Sent;
use axum::extract::Query;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::stream;
use http::StatusCode;
use http_body_util::BodyExt;
use raworc_core::program::FileEntry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::client::Found;
use crate::server::agents::testing::{World, soon};
use crate::server::{Options, router, serve};

struct Served {
    world: World,
    client: Client,
    name: AgentName,
}

/// A server with an agent whose program serves `hands`.
async fn served(hands: Router) -> Served {
    let world = World::new().await;
    let links = world.state.links.clone();
    let api = router(world.control.clone(), Options::default().with_links(links));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("works");
    let client = Client::new(&format!("http://{}", listener.local_addr().expect("works"))).expect("works");
    tokio::spawn(serve(listener, api, std::future::pending()));
    let client = client.with_token(world.api_token().await);
    world.up("a").await.link(hands).await;
    Served { world, client, name: "a".parse().expect("works") }
}

/// What a program answers that is asked for the standard error of a command with a terminal.
async fn none() -> (StatusCode, Json<serde_json::Value>) {
    let error = json!({ "error": { "code": "conflict", "message": "this stream is read already, or there is none" } });
    (StatusCode::CONFLICT, Json(error))
}

/// `cat` in a terminal: what is typed is shown, then it ends.
fn cat() -> (Router, mpsc::UnboundedReceiver<TerminalSize>) {
    let (typed, shown) = mpsc::unbounded_channel::<Result<Bytes, axum::Error>>();
    let shown = Arc::new(Mutex::new(Some(shown)));
    let typed = Arc::new(Mutex::new(Some(typed)));
    let (resized, sizes) = mpsc::unbounded_channel();
    let (ended, end) = watch::channel(false);
    let stdin = put(move |body: Sent| async move {
        let typed = typed.lock().await.take().expect("works");
        let mut body = body;
        while let Some(frame) = body.frame().await {
            typed.send(Ok(frame.expect("works").into_data().expect("works"))).expect("works");
        }
        ended.send_replace(true);
        StatusCode::NO_CONTENT
    });
    let stdout = get(move || async move {
        Sent::from_stream(UnboundedReceiverStream::new(shown.lock().await.take().expect("works")))
    });
    let wait = get(move || {
        let mut end = end.clone();
        async move {
            end.wait_for(|&ended| ended).await.expect("works");
            Json(json!({ "exit_code": 7 }))
        }
    });
    let resize = post(move |Json(size): Json<TerminalSize>| async move {
        resized.send(size).expect("the test listens");
        StatusCode::NO_CONTENT
    });
    let router = Router::new()
        .route("/exec", post(|Json(_): Json<ExecRequest>| async { Json(json!({ "id": "cat" })) }))
        .route("/exec/{id}/stdin", stdin)
        .route("/exec/{id}/stdout", stdout)
        .route("/exec/{id}/stderr", get(none))
        .route("/exec/{id}/wait", wait)
        .route("/exec/{id}/resize", resize);
    (router, sizes)
}

#[tokio::test]
async fn a_terminal_is_attached_to_a_command_until_it_ends() {
    let (hands, mut sizes) = cat();
    let Served { world: _world, client, name } = served(hands).await;
    let size = TerminalSize { rows: 24, cols: 80 };
    let request = ExecRequest { command: vec!["cat".into()], terminal: Some(size), stdin: true, ..Default::default() };
    let command = client.exec(&name, &request, true).await.expect("works");
    let (mut keys, input) = tokio::io::duplex(64);
    let (resize, resizes) = mpsc::unbounded_channel();
    let (mut screen, output) = tokio::io::duplex(64);
    let attached = tokio::spawn(async move {
        let resizes = UnboundedReceiverStream::new(resizes);
        command.attach(Some(input), output, tokio::io::sink(), resizes).await
    });
    keys.write_all(b"hello").await.expect("works");
    let mut seen = [0; 5];
    soon("the echo", tokio::io::AsyncReadExt::read_exact(&mut screen, &mut seen)).await.expect("works");
    assert_eq!(&seen, b"hello");
    let larger = TerminalSize { rows: 50, cols: 200 };
    resize.send(larger).expect("works");
    assert_eq!(soon("the size", sizes.recv()).await, Some(larger));
    drop(keys);
    assert_eq!(soon("the end", attached).await.expect("works").expect("works").exit_code, 7);
}

#[tokio::test]
async fn a_large_output_passes_all_the_way_without_being_kept() {
    const CHUNK: usize = 64 << 10;
    const SIZE: u64 = 64 << 20;
    let made = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&made);
    let stdout = get(move || async move {
        let chunks = stream::repeat(Bytes::from(vec![b'x'; CHUNK])).take(usize::try_from(SIZE).expect("works") / CHUNK);
        Sent::from_stream(chunks.map(move |chunk| {
            counter.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            Ok::<_, axum::Error>(chunk)
        }))
    });
    let hands = Router::new()
        .route("/exec", post(|Json(_): Json<ExecRequest>| async { Json(json!({ "id": "yes" })) }))
        .route("/exec/{id}/stdout", stdout);
    let Served { world: _world, client, name } = served(hands).await;
    let request = ExecRequest { command: vec!["yes".into()], ..Default::default() };
    let command = client.exec(&name, &request, true).await.expect("works");
    let mut bytes = command.stdout().await.expect("works");
    let (mut read, mut largest) = (0, 0);
    while let Some(chunk) = soon("a piece", bytes.next()).await {
        read += chunk.expect("works").len() as u64;
        largest = largest.max(made.load(Ordering::SeqCst) - read);
    }
    assert_eq!(read, SIZE);
    // The buffers of two sockets on loopback are the most of it.
    assert!(largest < 24 << 20, "{largest} bytes were on their way at once");
}

#[tokio::test]
async fn files_are_written_read_listed_and_removed() {
    let kept = Arc::new(Mutex::new(Bytes::new()));
    let (write, read) = (Arc::clone(&kept), Arc::clone(&kept));
    let files = put(move |Query(query): Query<Vec<(String, String)>>, body: Bytes| async move {
        assert_eq!(query[1], ("mode".to_owned(), "750".to_owned()));
        *write.lock().await = body;
        StatusCode::NO_CONTENT
    })
    .get(move |Query(query): Query<Vec<(String, String)>>| async move {
        use axum::response::IntoResponse;
        match query[0].1.as_str() {
            "dir" => {
                let entry =
                    FileEntry { name: "f".into(), kind: "file".into(), size: 3, mode: 0o644, modified_at: None };
                Json([entry]).into_response()
            }
            "none" => {
                let error = json!({ "error": { "code": "not_found", "message": "none: no such file" } });
                (StatusCode::NOT_FOUND, Json(error)).into_response()
            }
            _ => read.lock().await.clone().into_response(),
        }
    })
    .delete(|| async { StatusCode::NO_CONTENT });
    let hands = Router::new().route("/files", files).layer(axum::extract::DefaultBodyLimit::disable());
    let Served { world: _world, client, name } = served(hands).await;
    let body = Bytes::from(vec![9; 3 << 20]);
    let pieces = stream::iter(body.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>());
    client.write_file(&name, "some file", Some(0o750), Body::stream(pieces)).await.expect("works");
    assert_eq!(*kept.lock().await, body);
    client.write_file(&name, "some file", Some(0o750), Body::read(io::Cursor::new(b"short"))).await.expect("works");
    assert_eq!(*kept.lock().await, "short");
    client.write_file(&name, "some file", Some(0o750), body.clone()).await.expect("works");
    let Found::File { mut bytes, size } = client.read_file(&name, "some file").await.expect("works") else {
        panic!("a file is no directory");
    };
    assert_eq!(size, Some(body.len() as u64));
    let mut read = Vec::new();
    while let Some(chunk) = bytes.next().await {
        read.extend_from_slice(&chunk.expect("works"));
    }
    assert_eq!(read, body);
    let Found::Directory(entries) = client.read_file(&name, "dir").await.expect("works") else {
        panic!("a directory is no file");
    };
    assert_eq!(entries[0].name, "f");
    let error = client.read_file(&name, "none").await.unwrap_err();
    assert_eq!((error.code.as_str(), error.message.as_str()), ("not_found", "none: no such file"));
    client.remove_file(&name, "some file", false).await.expect("works");
}
