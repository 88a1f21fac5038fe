//! Lists from whatever cursor: a page of what lies behind it, or a refusal, and by the cursors of pages to the end.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use raworc_core::ids::AgentName;
use raworc_fuzz::{AGENTS, WORLD};

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

/// All agents behind this name, by pages of two; of no name all there are.
fn walk(name: &[u8]) {
    let after = if name.is_empty() { String::new() } else { format!("&after={}", URL_SAFE_NO_PAD.encode(name)) };
    let (status, first) = WORLD.get(&format!("/agents?limit=2{after}")).expect("an address");
    let known = std::str::from_utf8(name).ok().and_then(|name| AgentName::new(name).ok());
    if known.is_none() && !name.is_empty() {
        assert_eq!(status, StatusCode::BAD_REQUEST, "{first}");
        return;
    }
    assert_eq!(status, StatusCode::OK, "{first}");
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
    let behind = |agent: &&&str| known.as_ref().is_none_or(|known| **agent > known.as_str());
    let behind: Vec<_> = AGENTS.iter().filter(behind).collect();
    assert!(names.iter().eq(behind.iter().copied()), "{names:?} behind {known:?}, where {behind:?} are");
}
