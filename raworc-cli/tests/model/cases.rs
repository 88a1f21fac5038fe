//! The cases.

use std::time::Duration;

use futures::StreamExt;
use raworc_core::event::EventKind;
use raworc_core::message::{Message, MessageState};
use raworc_http::client::{Ask, Told};
use serde_json::Value;

use crate::models::{Model, OwnModel};
use crate::world::{Setting, World, first_words};

/// Nothing keeps the model from writing to its heart's content.
const LONG: Setting = Setting { context: 32_768, tokens: 200_000 };

const STORY: &str = "Write a very long story about the sea, with many chapters.";

/// What was said in a request, as `role: text`.
fn said(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().expect("messages");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    messages.iter().map(|message| format!("{}: {}", text(&message["role"]), text(&message["content"]))).collect()
}

/// Waits until it is so, for a minute at most.
async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}

#[track_caller]
fn why_failed(message: &Message) -> String {
    assert_eq!(message.state, MessageState::Failed, "{message:#?}");
    message.reason.clone().expect("a reason")
}

pub(crate) async fn a_message_in_words_is_answered_and_the_words_come_as_they_are_written(model: Model) {
    let world = World::new(&model).await;
    let mut told = world.follow().await;
    let id = world.begin("Write two sentences about the sea.").await;
    let mut words = Vec::new();
    loop {
        match told.next().await.expect("a stream without an end").expect("told") {
            Told::Delta(delta) => {
                assert_eq!(delta.message, id);
                words.push(delta.text);
            }
            Told::Event(event) if event.kind == EventKind::MessageReply => break,
            Told::Event(_) => {}
        }
    }
    assert!(words.len() > 1, "{words:?}");
    // The last words may be on their way still when the message ends.
    let answer = world.answer(&world.end(id).await).await;
    assert!(answer.starts_with(words.concat().trim()), "{words:?} are not the beginning of {answer:?}");
}

pub(crate) async fn a_second_message_is_answered_with_the_first_one_in_mind(model: Model) {
    let world = World::new(&model).await;
    let answer = world.say("Say hello.").await;
    world.say("Say it again.").await;
    let requests = world.proxy.requests();
    let cut = answer.split("\n\n[The model's answer was cut").next().expect("a beginning");
    let known = said(requests.last().expect("a request"));
    assert_eq!(known[1..].len(), 3, "{known:#?}");
    assert_eq!(known[1], "user: Say hello.");
    assert_eq!(known[2].trim_end(), format!("assistant: {cut}"));
    assert_eq!(known[3], "user: Say it again.");
}

pub(crate) async fn what_was_said_is_known_after_sleep_and_wake(model: Model) {
    let world = World::new(&model).await;
    let answer = world.say("Say hello.").await;
    let slept = world.client.sleep(&world.ada, false, Ask::new().wait_secs(60)).await.expect("slept");
    assert!(!slept.status.state().is_up(), "{slept:#?}");
    world.say("Say it again.").await;
    let woken = world.client.agent(&world.ada).await.expect("there");
    assert!(woken.status.incarnation > slept.status.incarnation, "{woken:#?}");
    let known = said(world.proxy.requests().last().expect("a request"));
    let start: String = answer.chars().take(20).collect();
    assert!(known[1] == "user: Say hello." && known[2].contains(&start), "{known:#?}");
}

pub(crate) async fn tokens_are_counted_as_the_models_server_counts_them(model: Model) {
    let world = World::new(&model).await;
    world.say("Say hello.").await;
    world.say("Say it again.").await;
    let (read, written) = world.proxy.usage();
    assert!(read > 100 && written > 2, "{read} and {written}");
    let figure = async |kind: &str| {
        world.figure(&format!("raworc_model_tokens_total{{model=\"{}\",kind=\"{kind}\"}}", model.name)).await
    };
    assert_eq!((figure("prompt").await, figure("completion").await), (read, written));
}

pub(crate) async fn what_no_longer_fits_is_put_in_few_words_by_the_model(model: Model) {
    let world = World::with(&model, Setting { context: 1024, tokens: 320 }).await;
    // What commands print is part of the conversation.
    for _ in 0..3 {
        world.say("!seq 1 200").await;
    }
    world.say("Say goodbye.").await;
    let requests = world.proxy.requests();
    let asked_for_summary = requests.iter().any(|request| said(request)[0].contains("Write a short summary"));
    assert!(asked_for_summary, "{requests:#?}");
    let known = said(requests.last().expect("a request"));
    assert!(known[1].starts_with("user: What was said before, in short:"), "{known:#?}");
    assert_eq!(known.last().expect("a message"), "user: Say goodbye.");
}

pub(crate) async fn a_cancel_in_the_middle_of_a_long_answer_hangs_up_on_the_model(model: Model) {
    let own = OwnModel::start(&model);
    let world = World::with(&own.model, LONG).await;
    let mut told = world.follow().await;
    let id = world.begin(STORY).await;
    first_words(&mut told, id).await;
    assert!(own.is_writing().await && !world.proxy.was_hung_up_on());
    world.client.cancel_message(&world.ada, id, Ask::new()).await.expect("cancelled");
    soon("the message is cancelled", async || {
        world.client.message(&world.ada, id, None).await.expect("there").state == MessageState::Cancelled
    })
    .await;
    soon("the gateway hangs up", async || world.proxy.was_hung_up_on()).await;
    soon("the model writes no more", async || !own.is_writing().await).await;
    assert_eq!(world.say("!echo here").await.trim(), "here");
}

pub(crate) async fn an_answer_that_breaks_off_is_asked_for_once_more(model: Model) {
    let world = World::new(&model).await;
    let mut told = world.follow().await;
    let id = world.begin(STORY).await;
    first_words(&mut told, id).await;
    world.proxy.cut();
    let message = world.end(id).await;
    assert_eq!(message.state, MessageState::Done, "{message:#?}");
    assert_eq!(message.attempt, 1, "{message:#?}");
    world.answer(&message).await;
    let steps = world.steps(id).await;
    assert!(steps.iter().any(|step| step.text.contains("it is asked once more")), "{steps:#?}");
    assert_eq!(world.proxy.requests().len(), 2);
}

pub(crate) async fn a_model_that_is_killed_in_the_middle_fails_the_message_and_loses_nothing(model: Model) {
    let mut own = OwnModel::start(&model);
    let world = World::with(&own.model, LONG).await;
    let mut told = world.follow().await;
    let id = world.begin(STORY).await;
    let next = world.begin("!echo still here").await;
    first_words(&mut told, id).await;
    own.kill();
    let reason = why_failed(&world.end(id).await);
    assert!(reason.contains("cannot be reached") && reason.contains("see that"), "{reason}");
    let steps = world.steps(id).await;
    assert!(steps.iter().any(|step| step.text.contains("it is asked once more")), "{steps:#?}");
    let next = world.end(next).await;
    assert_eq!(world.answer(&next).await.trim(), "still here");

    world.proxy.lead_to(model.address);
    let asked = world.proxy.requests().len();
    let last = world.begin("Say hello.").await;
    soon("the model is asked again", async || world.proxy.requests().len() > asked).await;
    let known = said(world.proxy.requests().last().expect("a request"));
    assert_eq!(known[1], format!("user: {STORY}"));
    assert!(known[2].starts_with("assistant: (failed: "), "{known:#?}");
    world.client.cancel_message(&world.ada, last, Ask::new()).await.expect("asked");
    world.end(last).await;
}

pub(crate) async fn a_key_that_the_model_does_not_take_is_told(model: Model) {
    let own = OwnModel::start(&model);
    let world = World::new(&Model { key: "another-key".into(), ..own.model.clone() }).await;
    let reason = why_failed(&world.end(world.begin("Say hello.").await).await);
    assert!(reason.contains("refused this installation's key (status 401)"), "{reason}");
    assert!(!reason.contains("another-key"), "{reason}");
}

pub(crate) async fn a_model_that_reads_less_than_the_configuration_says_is_asked_with_less(model: Model) {
    let world = World::with(&model, Setting { context: 1 << 20, tokens: 60 }).await;
    // Some 12,000 tokens, where the server reads 8,192.
    let id = world.begin(&"word ".repeat(12_000)).await;
    let message = world.end(id).await;
    assert_eq!(message.state, MessageState::Done, "{message:#?}");
    world.answer(&message).await;
    let steps = world.steps(id).await;
    let note = &steps.first().expect("a note").text;
    assert!(note.contains("longer than the model reads") && note.contains("`context` in the configuration"), "{note}");
}

pub(crate) async fn no_key_and_no_address_of_the_model_is_in_the_computer(model: Model) {
    let world = World::new(&model).await;
    world.say("Say hello.").await;
    let (proxy, server) = (world.proxy.address.to_string(), model.address.to_string());
    let outside = std::fs::read_to_string(world.configuration()).expect("read");
    assert!(outside.contains(&proxy), "{outside}");
    // What is looked for comes by standard input, or the look would find itself. One word of it is planted, in a file
    // and in an environment, to show that the look finds what is there.
    let look = "read -r planted; printf %s \"$planted\" >planted; PLANTED=$planted sleep 1000 & \
                until grep -qaF \"$planted\" /proc/$!/environ; do :; done; \
                { echo \"$planted\"; cat; } | grep -rlaF -f - /agent /run /tmp /etc /opt /home /var /dev/shm \
                /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; kill $!";
    let (_, found) = world.exec(look, &format!("a-planted-word\n{}\n{proxy}\n{server}\n", model.key));
    let found: Vec<_> = found.lines().collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0] == "/agent/planted" && found[1].ends_with("/environ"), "{found:#?}");
    for address in [world.proxy.address, model.address] {
        let dial = format!("exec bash -c ': <>/dev/tcp/{}/{}' 2>/dev/null", address.ip(), address.port());
        assert_ne!(world.exec(&dial, "").0, Some(0), "{address} is reached");
    }
}
