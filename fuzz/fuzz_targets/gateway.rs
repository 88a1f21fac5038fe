#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    raworc_http::server::fuzzing::answer(data);
    raworc_http::server::fuzzing::question(data);
});
