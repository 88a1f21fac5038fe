use insta::assert_snapshot;
use raworc_http::client::{Ask, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::exit::{code_of, render};

/// A server that gives the same answer to every request, or none at all.
async fn answering(answer: Option<(&'static str, &'static str)>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            if let Some((status, body)) = answer {
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + body).as_bytes()).await.expect("written");
            }
        }
    });
    Client::new(&url).expect("an address").with_token("a token")
}

/// What is shown of a call that comes to nothing there, and the exit code.
async fn told(client: &Client) -> String {
    let error = client.remove_file(&"ada".parse().expect("a name"), "x", false).await.expect_err("refused");
    let error = anyhow::Error::new(error);
    let text = format!("{}\nexit: {}", render(&error, "error", "hint"), code_of(&error));
    text.replace(client.server(), "[URL]")
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_how_to_have_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    assert_snapshot!(told(&Client::new(&url).expect("an address")).await, @r"
    error: no server answers at [URL]: Connection refused (os error 111)
    hint: start one with `raworc up`, or name another with --server URL
    exit: 7
    ");
    let elsewhere = told(&Client::new("http://nowhere.invalid:9000").expect("an address")).await;
    assert!(elsewhere.starts_with("error: no server answers at [URL]: "), "{elsewhere}");
    assert!(elsewhere.ends_with("hint: check the address, or name another with --server URL\nexit: 7"), "{elsewhere}");
}

#[tokio::test]
async fn a_connection_that_is_lost_is_told_so() {
    let shown = told(&answering(None).await).await;
    assert!(shown.starts_with("error: the connection to [URL] was lost: "), "{shown}");
    assert!(shown.ends_with("hint: nothing that was accepted is lost; try again\nexit: 7"), "{shown}");
}

#[tokio::test]
async fn something_that_is_no_server_of_ours_is_told_so() {
    assert_snapshot!(told(&answering(Some(("404 Not Found", "<h1>Not here</h1>"))).await).await, @r#"
    error: [URL] answered 404 Not Found: "<h1>Not here</h1>"
    hint: is it a Raworc server?
    exit: 3
    "#);
    let client = answering(Some(("200 OK", "<h1>It works!</h1>"))).await;
    let error = anyhow::Error::new(client.version().await.expect_err("no version"));
    assert_snapshot!(render(&error, "error", "hint").replace(client.server(), "[URL]"), @r"
    error: [URL] answered something else than this release understands: expected value at line 1 column 1
    hint: is it a Raworc server?
    ");
    assert_eq!(code_of(&error), 1);
}

#[tokio::test]
async fn what_the_server_refuses_has_its_exit_code_and_its_way_out() {
    let hints =
        |shown: &str| shown.lines().filter(|line| line.starts_with("hint")).map(str::to_owned).collect::<Vec<_>>();
    for (status, body, exit, hint) in [
        (
            "401 Unauthorized",
            r#"{"error":{"code":"unauthenticated","message":"m"}}"#,
            4,
            "hint: log in again with `raworc login`",
        ),
        ("403 Forbidden", r#"{"error":{"code":"forbidden","message":"m"}}"#, 4, ""),
        (
            "409 Conflict",
            r#"{"error":{"code":"agent_asleep","message":"m"}}"#,
            5,
            "hint: wake it with `raworc agent wake NAME`",
        ),
        ("409 Conflict", r#"{"error":{"code":"name_taken","message":"m"}}"#, 5, ""),
        ("412 Precondition Failed", r#"{"error":{"code":"generation_mismatch","message":"m"}}"#, 5, ""),
        (
            "404 Not Found",
            r#"{"error":{"code":"not_found","message":"m","details":{"what":"agent"}}}"#,
            3,
            "hint: `raworc agent list` shows the agents that there are",
        ),
        ("404 Not Found", r#"{"error":{"code":"not_found","message":"m"}}"#, 3, ""),
        ("410 Gone", r#"{"error":{"code":"gone","message":"m"}}"#, 3, ""),
        ("400 Bad Request", r#"{"error":{"code":"invalid","message":"m"}}"#, 2, ""),
        ("422 Unprocessable Content", r#"{"error":{"code":"idempotency_mismatch","message":"m"}}"#, 2, ""),
        ("504 Gateway Timeout", r#"{"error":{"code":"timed_out","message":"m"}}"#, 6, ""),
        ("429 Too Many Requests", r#"{"error":{"code":"inbox_full","message":"m"}}"#, 1, ""),
        ("500 Internal Server Error", r#"{"error":{"code":"internal","message":"m"}}"#, 1, ""),
    ] {
        let shown = told(&answering(Some((status, body))).await).await;
        assert!(shown.starts_with("error: m\n"), "{status}: {shown}");
        assert!(shown.ends_with(&format!("\nexit: {exit}")), "{body}: {shown}");
        assert_eq!(hints(&shown).join("\n"), hint, "{body}: {shown}");
    }
}

#[tokio::test]
async fn an_error_that_a_reader_passed_on_keeps_its_exit_code_and_its_way_out() {
    let client = answering(Some(("409 Conflict", r#"{"error":{"code":"agent_asleep","message":"m"}}"#))).await;
    let error = client.remove_file(&"ada".parse().expect("a name"), "x", false).await.expect_err("refused");
    let error = anyhow::Error::new(std::io::Error::other(error)).context("cannot write out.txt");
    assert_snapshot!(render(&error, "error", "hint"), @r"
    error: cannot write out.txt
      because: m
    hint: wake it with `raworc agent wake NAME`
    ");
    assert_eq!(code_of(&error), 5);
}

#[test]
fn what_is_no_address_says_how_one_is_written() {
    let error = anyhow::Error::new(Client::new("ftp://host").expect_err("none"));
    assert_snapshot!(render(&error, "error", "hint"), @r#"
    error: "ftp://host" is no server's address: write it as http://HOST:PORT or https://HOST
    hint: a server is named as --server http://127.0.0.1:9000
    "#);
    assert_eq!(code_of(&error), 2);
}

#[tokio::test]
async fn a_key_that_cannot_be_sent_is_told_before_anything_is() {
    let client = Client::new("http://nowhere.invalid").expect("an address");
    let refused = client.cancel(&"ada".parse().expect("a name"), Ask::new().with_key("a\nb")).await;
    let error = anyhow::Error::new(refused.expect_err("refused"));
    assert_snapshot!(render(&error, "error", "hint"), @r#"error: Idempotency-Key: use visible ASCII characters, not "a\nb""#);
    assert_eq!(code_of(&error), 2);
}
