#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raworc_fuzz::in_scratch(|scratch| raworc_agent::fuzzing::archive(
    data, scratch
)));
