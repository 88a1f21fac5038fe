//! No text but a token that was issued is good, and that one says what it was issued for.
#![no_main]

use std::time::Duration;

use raworc_core::ids::{AgentId, ComputerId, Incarnation};
use raworc_core::principal::Principal;
use raworc_fuzz::WORLD;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let tokens = &WORLD.tokens;
    let text = String::from_utf8_lossy(data);
    assert!(tokens.verify_user(&text).is_err() && tokens.verify_agent(&text).is_err(), "{text:?} is good");

    let Some((numbers, rest)) = data.split_first_chunk::<20>() else { return };
    let uuid: [u8; 16] = numbers[..16].try_into().expect("16 bytes");
    let id = u128::from_be_bytes(uuid);
    let text = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        id >> 96,
        id >> 80 & 0xffff,
        id >> 64 & 0xffff,
        id >> 48 & 0xffff,
        id & 0xffff_ffff_ffff
    );
    let agent: AgentId = text.parse().expect("an id");
    let computer: ComputerId = text.parse().expect("an id");
    let incarnation = Incarnation(u64::from_be_bytes(numbers[8..16].try_into().expect("8 bytes")));
    let tenant = WORLD.ada.tenant().clone();
    let program = Principal::Agent { tenant, agent, computer, incarnation };
    let (who, good): (_, fn(&str) -> Option<Principal>) = if numbers[16] % 2 == 0 {
        (&program, |token| WORLD.tokens.verify_agent(token).ok().map(|token| token.principal))
    } else {
        (&WORLD.ada, |token| {
            WORLD.tokens.verify_user(token).ok().map(|token| Principal::user(token.name, token.tenant))
        })
    };
    let issued = tokens.issue(who, Duration::from_secs(3600)).expect("issued").token;
    assert_eq!(good(&issued).as_ref(), Some(who));

    // One change, wherever and whatever.
    let mut changed = issued.clone().into_bytes();
    let at = usize::from(u16::from_be_bytes([numbers[17], numbers[18]])) % changed.len();
    let until = (at + usize::from(numbers[19] % 4)).min(changed.len());
    changed.splice(at..until, rest.iter().copied());
    let changed = String::from_utf8_lossy(&changed);
    if changed != issued {
        assert_eq!(good(&changed), None, "{changed:?} is as good as {issued:?}");
    }
});
