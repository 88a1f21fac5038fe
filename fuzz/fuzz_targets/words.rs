//! Whatever is read out of one text and printed reads back as the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use raworc_core::agent::State;
use raworc_core::blob::BlobId;
use raworc_core::ids::{AgentId, AgentName, Revision, TenantName, TokenId, UserName};
use raworc_core::labels::Selector;
use raworc_core::quantity::{Bytes, Cpu};
use raworc_http::api::Wait;

libfuzzer_sys::fuzz_target!(|text: &str| {
    again::<AgentId>(text);
    again::<TokenId>(text);
    again::<BlobId>(text);
    again::<Cpu>(text);
    again::<Bytes>(text);
    again::<Selector>(text);
    again::<Wait>(text);
    again::<Revision>(text);
    itself::<AgentName>(text);
    itself::<TenantName>(text);
    itself::<UserName>(text);
    itself::<State>(text);
});

fn again<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<String> {
    let read = text.parse::<T>().ok()?;
    let printed = read.to_string();
    match printed.parse::<T>() {
        Ok(again) => assert_eq!(again, read, "{text:?} is printed as {printed:?}"),
        Err(_) => panic!("{text:?} is {read:?}, which is printed as {printed:?} and is not read"),
    }
    Some(printed)
}

/// The same for what has one form alone.
fn itself<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Some(printed) = again::<T>(text) {
        assert_eq!(printed, text);
    }
}
