//! What programs, servers and clients say to each other: what is taken says the same when it is written again.
#![no_main]

use raworc_core::agent::{AgentSpec, SpecChange};
use raworc_core::control::{CreateAgent, SendMessage};
use raworc_core::event::Event;
use raworc_core::message::Message;
use raworc_core::program::{
    BootReply, BootRequest, CancelRequest, DeltaReport, EndReport, ExecRequest, HeartbeatReply, LeaseReply, ProgramSpec,
    SetupReport, StepsReport, TerminalSize, TokenReply,
};
use raworc_core::runtime::Capabilities;
use raworc_http::api::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    again::<BootRequest>(data);
    again::<TokenReply>(data);
    again::<BootReply>(data);
    again::<ProgramSpec>(data);
    again::<SetupReport>(data);
    again::<LeaseReply>(data);
    again::<StepsReport>(data);
    again::<DeltaReport>(data);
    again::<EndReport>(data);
    again::<HeartbeatReply>(data);
    again::<CancelRequest>(data);
    again::<ExecRequest>(data);
    again::<TerminalSize>(data);
    again::<SendMessage>(data);
    again::<Message>(data);
    again::<Event>(data);
    again::<ErrorBody>(data);
    if let Some(create) = again::<CreateAgent>(data) {
        let _ = create.spec.check(&Capabilities::default());
    }
    if let Some(spec) = again::<SpecChange>(data).and_then(|change| change.apply(&AgentSpec::default()).ok()) {
        let written = serde_json::to_vec(&spec).expect("written");
        assert_eq!(serde_json::from_slice::<AgentSpec>(&written).expect("read again"), spec);
    }
});

fn again<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_string(&read).expect("written");
    let again: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{written} is not read: {error}"));
    assert_eq!(serde_json::to_string(&again).expect("written"), written);
    Some(read)
}
