//! The conformance suites against every backend that this machine has: `sqlite::a_case`, `memory::a_case`, ...
//!
//! `RAWORC_TEST_BACKENDS=sqlite,local` names the backends that must be reached: one that is not, or that nobody knows,
//! fails the run.

mod required;
mod runtimes;
mod stores;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use self::required::Required;

fn main() -> ExitCode {
    // Computers of the local runtime are built by this very binary.
    if let Some(code) = raworc_backends::local::init_main() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Most cases wait: for an engine, for a disk, for a time to pass.
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    arguments.test_threads.get_or_insert(2 * cores);
    let required = Required::from_env();
    let mut trials = required.trials();
    trials.extend(stores::trials(&required));
    trials.extend(runtimes::trials(&required));
    libtest_mimic::run(&arguments, trials).exit_code()
}
