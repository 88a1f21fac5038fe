//! A path that a client names arrives in the computer as it was named, and nothing else of the request does.
#![no_main]

use raworc_agent::fuzzing::{meant_by, path_of};
use raworc_fuzz::encoded;
use raworc_http::server::fuzzing::request_for;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // As a whole query, whatever it is.
    if let Some(uri) = std::str::from_utf8(data).ok().and_then(request_for) {
        assert!(path_of(&uri).is_some(), "{uri} was let through and is refused by the program");
        assert_eq!((uri.host(), uri.path()), (Some("computer"), "/files"));
    }
    // As a path that a client writes.
    let uri = request_for(&format!("path={}", encoded(data)));
    let taken = std::str::from_utf8(data).ok().filter(|path| (1..=4096).contains(&path.len()) && !path.contains('\0'));
    match (uri, taken) {
        (Some(uri), Some(path)) => assert_eq!(path_of(&uri), Some(meant_by(path)), "{uri}"),
        // What is no text is shown as one, or refused. Text that is no path is refused.
        (Some(uri), None) => assert!(std::str::from_utf8(data).is_err(), "{uri}"),
        (None, None) => {}
        (None, Some(path)) => panic!("{path:?} is refused"),
    }
});
