//! The whole product with a real model behind its gateway: `raworc up` on SQLite and the local runtime, and a model that
//! llama.cpp serves. Such a small one knows no tools and little else, so what is asserted is wiring and no wisdom.
//!
//! They run where `RAWORC_TEST_BACKENDS` names `model`, with the one at `RAWORC_TEST_MODEL_URL`; `scripts/model` brings
//! one up. Cases that end a model or look into it bring up one of their own by the same script.

mod cases;
mod models;
mod proxy;
mod world;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use self::models::Model;

/// How long a case may take: the model writes ten words a second where the machine is busy.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A model that several write with writes slowly for each.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let backends = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
    let is_required = backends.split(',').any(|name| name.trim() == "model");
    libtest_mimic::run(&arguments, trials(is_required)).exit_code()
}

fn trials(is_required: bool) -> Vec<Trial> {
    macro_rules! trials {
        ($($case:ident),+ $(,)?) => {
            vec![$(trial(stringify!($case), is_required, cases::$case)),+]
        };
    }
    trials![
        a_message_in_words_is_answered_and_the_words_come_as_they_are_written,
        a_second_message_is_answered_with_the_first_one_in_mind,
        what_was_said_is_known_after_sleep_and_wake,
        tokens_are_counted_as_the_models_server_counts_them,
        what_no_longer_fits_is_put_in_few_words_by_the_model,
        a_cancel_in_the_middle_of_a_long_answer_hangs_up_on_the_model,
        an_answer_that_breaks_off_is_asked_for_once_more,
        a_model_that_is_killed_in_the_middle_fails_the_message_and_loses_nothing,
        a_key_that_the_model_does_not_take_is_told,
        a_model_that_reads_less_than_the_configuration_says_is_asked_with_less,
        no_key_and_no_address_of_the_model_is_in_the_computer,
    ]
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, is_required: bool, case: fn(Model) -> F) -> Trial {
    let run = move || -> Result<(), Failed> {
        let model = Model::from_env()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, case(model)).await });
        runtime.shutdown_timeout(Duration::from_secs(5));
        ended.map_err(|_| Failed::from(format!("not over after {LIMIT:?}")))
    };
    Trial::test(format!("model::{name}"), run).with_ignored_flag(!is_required)
}
