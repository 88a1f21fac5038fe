//! Text: every character, every length.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::scene::{Scene, commit_id, creation, done, spec, tenant};
use super::{StoreCase, StoreUnderTest, case};
use crate::agent::{AgentSpec, ConditionKind};
use crate::ids::TenantName;
use crate::message::MESSAGE_LIMIT;
use crate::step::{NewStep, STEP_LIMIT, StepKind};
use crate::store::{
    AgentOp, AuditEntry, AuditQuery, Change, Commit, MessageQuery, RecordChange, RecordCheck, RecordKey, RecordKind,
    StepQuery,
};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(every_character_comes_back_in_messages shows "S25"),
        case!(the_longest_texts_come_back shows "S25"),
        case!(texts_that_mean_something_to_a_database_come_back_everywhere shows "S25", "S2"),
    ]
}

/// All characters of Unicode, in texts that fit a message.
fn alphabet() -> Vec<String> {
    let mut texts = vec![String::new()];
    for c in '\0'..=char::MAX {
        match texts.last_mut() {
            Some(text) if text.len() + c.len_utf8() <= MESSAGE_LIMIT => text.push(c),
            _ => texts.push(c.to_string()),
        }
    }
    texts
}

async fn every_character_comes_back_in_messages(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("reader").await.id;
    let texts = alphabet();
    for text in &texts {
        scene.accept(id, text).await;
    }
    let scene = scene.reopen(&*subject).await;
    let page = scene.store.messages(&MessageQuery::of(id)).await.expect("the store answers");
    assert_eq!(page.items.len(), texts.len());
    for (message, text) in page.items.iter().zip(&texts) {
        assert!(message.text() == *text, "message {} is not what was written", message.seq);
    }
}

async fn the_longest_texts_come_back(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let instructions = "\u{1F600}".repeat((64 << 10) / 4);
    let env = BTreeMap::from([("LONG".to_owned(), "é".repeat((64 << 10) / 2 - 2))]);
    let spec = AgentSpec {
        instructions: Some(instructions.clone()),
        setup: Some("\\".repeat(64 << 10)),
        env,
        description: Some("d".repeat(1 << 10)),
        ..spec()
    };
    let agent = scene.create_with(&TenantName::default(), &"n".repeat(63), spec.clone()).await;
    scene.start(agent.id).await;
    let message = scene.accept(agent.id, &"m".repeat(MESSAGE_LIMIT)).await;
    let step = NewStep { kind: StepKind::ToolResult, tool: Some("shell".into()), text: "\"".repeat(STEP_LIMIT) };
    let add = AgentOp::AddSteps { message: Some(message.id), attempt: 1, steps: vec![step.clone(); 8] };
    let answer = "\u{10FFFF}".repeat(MESSAGE_LIMIT / 4);
    scene.change(agent.id, vec![AgentOp::Lease(message.id), add, done(message.id, &answer)]).await;
    // As long as what is kept of a log, and of what takes most room.
    let key = RecordKey { kind: RecordKind::DeathLog, tenant: Some(tenant("ours")), name: agent.id.to_string() };
    let log = json!({ "log": "\0".repeat(64 << 10) });
    let record = RecordChange { key: key.clone(), when: RecordCheck::Absent, body: Some(log.clone()), ttl: None };
    scene.commit(Commit::new(commit_id(), vec![Change::Record(record)])).await;

    let scene = scene.reopen(&*subject).await;
    assert!(scene.agent(agent.id).await.spec == spec);
    let messages = scene.store.messages(&MessageQuery::of(agent.id)).await.expect("the store answers").items;
    assert!(messages[0].parts == message.parts && messages[1].text() == answer);
    let query = StepQuery { agent: agent.id, message: None, after: 0, limit: 500 };
    let steps = scene.store.steps(&query).await.expect("the store answers").items;
    assert_eq!(steps.len(), 8);
    assert!(steps.iter().all(|kept| kept.text == step.text && kept.tool == step.tool));
    let kept = scene.store.record(&key).await.expect("the store answers").expect("it is there");
    assert!(kept.body == log);
}

async fn texts_that_mean_something_to_a_database_come_back_everywhere(subject: Arc<dyn StoreUnderTest>) {
    let texts = [
        "",
        " ",
        "a\0b",
        "\0",
        "'; DROP TABLE agents; --",
        "\"",
        "`",
        "\\",
        "\\0",
        "\\u0000",
        "%",
        "_",
        "?1 $1 :x @y {}",
        "null",
        "NULL",
        "0",
        "1e400",
        "\r\n",
        "\u{FEFF}bom",
        "\u{FFFD}",
        "e\u{301}",
        "\u{202E}rtl",
        "\u{1F469}\u{200D}\u{1F52C}",
        "trailing ",
        "\ttab\t",
    ];
    let scene = Scene::open(&*subject).await;
    let ours = tenant("ours");
    for (n, text) in texts.into_iter().enumerate() {
        let metadata = json!({ text: text, "deep": [{ text: [text] }] });
        let spec = AgentSpec {
            model: Some(text.into()),
            instructions: Some(text.into()),
            metadata: metadata.as_object().expect("an object").clone(),
            ..spec()
        };
        let audit = AuditEntry {
            tenant: Some(ours.clone()),
            principal: text.into(),
            verb: text.into(),
            resource: text.into(),
            allowed: true,
            request: Some(text.into()),
        };
        let key = RecordKey { kind: RecordKind::Setting, tenant: Some(ours.clone()), name: text.into() };
        let record =
            RecordChange { key: key.clone(), when: RecordCheck::Absent, body: Some(metadata.clone()), ttl: None };
        let create = creation(&ours, &format!("agent-{n}"), spec.clone());
        let [Change::Agent(create)] = &create.changes[..] else { panic!("one change") };
        let changes = vec![Change::Agent(create.clone()), Change::Record(record)];
        scene.commit(Commit { audit: Some(audit.clone()), ..Commit::new(commit_id(), changes) }).await;
        let condition = AgentOp::SetCondition {
            kind: ConditionKind::DiskFull,
            status: true,
            reason: text.into(),
            message: text.into(),
        };
        let told = scene.change(create.agent, vec![condition]).await;
        let message = scene.accept(create.agent, text).await;

        let agent = scene.agent(create.agent).await;
        assert_eq!(agent.spec, spec, "{text:?}");
        assert_eq!(agent.status.conditions, told.status.conditions, "{text:?}");
        let kept =
            scene.store.message(create.agent, message.id).await.expect("the store answers").expect("it is there");
        assert_eq!(kept.text(), text);
        let found = scene.store.record(&key).await.expect("the store answers").expect("it is there");
        assert_eq!((found.key, found.body), (key, metadata), "{text:?}");
        let query = AuditQuery { tenant: Some(ours.clone()), after: None, limit: 500 };
        let rows = scene.store.audit(&query).await.expect("the store answers").items;
        assert_eq!(rows.last().map(|row| &row.entry), Some(&audit), "{text:?}");
    }
}
