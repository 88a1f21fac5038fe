//! The local runtime, and hostile programs in its computers.

mod lifecycle;
mod machine;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = raworc_backends::local::init_main() {
        return code;
    }
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(lifecycle::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
