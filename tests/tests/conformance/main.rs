//! The conformance suites against every backend that this machine has: `sqlite::a_case`, `memory::a_case`, ...
//!
//! `RAWORC_TEST_BACKENDS=sqlite,local` names the backends that must be reached: one that is not, or that nobody knows,
//! fails the run.

mod required;
mod stores;

use libtest_mimic::Arguments;

use self::required::Required;

fn main() {
    let arguments = Arguments::from_args();
    let required = Required::from_env();
    let mut trials = required.trials();
    trials.extend(stores::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
