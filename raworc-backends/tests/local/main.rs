//! The local runtime, and hostile programs in its computers.

mod bounds;
mod escapes;
mod hostile;
mod lifecycle;
mod machine;
mod servers;
mod volumes;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = raworc_backends::local::init_main() {
        return code;
    }
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some(hostile::COMMAND) => return hostile::inside(&args.collect::<Vec<_>>()),
        Some(servers::COMMAND) => return servers::serve(&args.collect::<Vec<_>>()),
        Some(_) | None => {}
    }
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(lifecycle::trials());
    trials.extend(escapes::trials());
    trials.extend(bounds::trials());
    trials.extend(volumes::trials());
    trials.extend(servers::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
