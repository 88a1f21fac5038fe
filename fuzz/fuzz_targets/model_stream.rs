#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raworc_agent::fuzzing::model_stream(data));
