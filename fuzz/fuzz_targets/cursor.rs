//! Lists from whatever cursor: a page of what lies behind it, or a refusal, and by the cursors of pages to the end.
#![no_main]

use http::StatusCode;
use raworc_fuzz::{AGENTS, WORLD, encoded};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let raw = || std::str::from_utf8(rest).ok();
    match choice % 4 {
        0 => walk(rest),
        1 => any(raw().map(|query| format!("/agents?{query}"))),
        2 => any(raw().map(|query| format!("/agents/a/messages?{query}"))),
        _ => any(raw().map(|query| format!("/events?follow=false&{query}"))),
    }
});

/// Whatever is asked is answered, or refused as the caller's own mistake.
fn any(path: Option<String>) {
    let Some((status, body)) = path.and_then(|path| WORLD.get(&path)) else { return };
    assert!(status.is_success() || status.is_client_error(), "{status} {body}");
    assert_ne!(status, StatusCode::UNAUTHORIZED, "{body}");
}

/// All agents behind a cursor, by pages of two.
fn walk(cursor: &[u8]) {
    let (status, first) = WORLD.get(&format!("/agents?limit=2&after={}", encoded(cursor))).expect("an address");
    if status != StatusCode::OK {
        assert_eq!(status, StatusCode::BAD_REQUEST, "{first}");
        return;
    }
    let (mut page, mut names) = (first, Vec::new());
    loop {
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 2, "{page}");
        names.extend(items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()));
        assert!(names.len() <= AGENTS.len(), "the pages do not end: {names:?}");
        let Some(next) = page["next"].as_str() else { break };
        let (status, following) = WORLD.get(&format!("/agents?limit=2&after={next}")).expect("an address");
        assert_eq!(status, StatusCode::OK, "the server's own cursor is refused");
        page = following;
    }
    assert!(AGENTS.join(" ").ends_with(&names.join(" ")), "{names:?} is no end of the list");
}
