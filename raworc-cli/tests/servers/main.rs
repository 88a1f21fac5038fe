//! `raworc server` and `raworc operator` on one database, several of each, the way a person runs them.
//!
//! `RAWORC_TEST_POSTGRES_URL` and its like name the servers of databases; one that is missing and not in
//! `RAWORC_TEST_BACKENDS` has its tests shown as ignored.

mod away;
mod balancer;
#[path = "../cli/clock.rs"]
mod clock;
mod clocks;
#[path = "../../../raworc-backends/src/sql/server/tests/database.rs"]
mod database;
#[path = "../cli/home.rs"]
#[allow(dead_code, reason = "another binary's tests use the rest")]
mod home;
mod life;
#[path = "../../../raworc-backends/src/sql/server/tests/own.rs"]
mod own;
mod places;
mod previous;
mod refused;
mod relay;
mod secret;
#[cfg(feature = "otlp")]
mod told;
#[path = "../cli/up.rs"]
#[allow(dead_code, reason = "another binary's tests use the rest")]
mod up;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

use self::database::Database;
use self::home::{Home, Ran};
use self::up::Up;

const PASSWORD: &str = "nobody guesses this one";

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for kind in ["postgres", "mariadb", "mysql"] {
        trials.push(trial(kind, "an_agent_lives_with_two_servers_and_an_operator", life::with_two_servers));
        trials.push(trial(kind, "a_server_that_is_killed_is_missed_by_nobody", life::a_server_is_killed));
        trials.push(trial(kind, "what_one_server_is_told_holds_at_the_other", life::told_to_one));
        let beside = trial(kind, "the_release_before_goes_on_beside_this_one", previous::goes_on_beside);
        trials.push(previous::where_it_is_there(beside));
        trials.push(trial(kind, "a_database_that_is_killed_is_missed_by_nobody", move |_| away::is_killed(kind)));
        trials.push(trial(kind, "the_password_comes_from_a_file_that_nobody_is_shown", secret::comes_from_a_file));
    }
    // It is one driver for both of MySQL's kind.
    for kind in ["postgres", "mysql"] {
        trials.push(trial(kind, "a_database_that_stands_still_is_told_of_and_goes_on", away::stands_still));
        let name = "who_follows_and_who_waits_behind_a_balancer_goes_on_at_another_server";
        trials.push(trial(kind, name, life::behind_a_balancer));
        let name = "what_a_database_that_stands_still_does_not_take_is_refused_and_not_held_in_memory";
        trials.push(trial(kind, name, away::much_is_sent));
        trials.push(trial(kind, "a_slow_database_takes_what_it_can_and_loses_nothing", away::is_slow));
    }
    trials.push(trial("pgbouncer", "an_agent_lives_with_two_servers_and_an_operator", life::with_two_servers));
    trials.push(trial("pgbouncer", "what_one_server_is_told_holds_at_the_other", life::told_to_one));
    for (name, test) in [
        ("an_agent_lives_where_clocks_differ", clocks::with_two_servers as fn(&Installation)),
        ("a_server_that_is_killed_is_missed_by_nobody_where_clocks_differ", clocks::a_server_is_killed),
        ("what_one_server_is_told_holds_at_the_other_where_clocks_differ", clocks::told_to_one),
    ] {
        trials.push(trial("postgres", name, test).with_ignored_flag(!clocks_can_differ()));
    }
    trials.push(previous::sqlite());
    // What follows is the same on every database.
    trials.push(trial("postgres", "each_engine_has_a_name_of_its_own", places::each_engine_has_its_name));
    trials.push(trial("postgres", "an_operator_says_how_it_is", places::an_operator_says_how_it_is));
    trials.push(trial("postgres", "a_process_without_the_right_key_is_refused", refused::without_the_right_key));
    trials.push(trial("postgres", "a_data_directory_of_another_installation_is_refused", refused::of_another));
    #[cfg(feature = "otlp")]
    trials.push(trial(
        "postgres",
        "a_message_is_one_trace_over_its_processes",
        told::by_server_and_operator_is_one_trace,
    ));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Whether this machine has what sets a process's clock. Where PostgreSQL is required, all of it is.
fn clocks_can_differ() -> bool {
    let is_named = |variable| std::env::var(variable).unwrap_or_default().split(',').any(|name| name == "postgres");
    (clock::library().is_ok() && database::server("postgres").is_ok()) || is_named("RAWORC_TEST_REQUIRED")
}

fn trial(kind: &'static str, name: &str, test: impl Fn(&Installation) + Send + 'static) -> Trial {
    let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
    let server = database::server(kind);
    let is_ignored = server.is_err() && !required.split(',').any(|name| name == kind);
    let run = move || {
        let server = server?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Database::with(&server, async |database| {
            // The processes are waited for, which is nothing for a task.
            tokio::task::spawn_blocking(move || test(&Installation::on(&database))).await.expect("it holds");
        }));
        Ok(())
    };
    Trial::test(format!("{kind}::{name}"), run).with_ignored_flag(is_ignored)
}

/// A database, and what all its processes are given alike.
struct Installation {
    home: Home,
    store: String,
    /// Whether the clocks of its processes are set apart.
    clocks_differ: bool,
}

impl Installation {
    fn on(database: &Database) -> Self {
        Self::with(&database.url())
    }

    /// With its rows in this database.
    fn with(store: &str) -> Self {
        let home = Home::new();
        std::fs::write(home.path().join("password"), PASSWORD).expect("written");
        std::fs::write(home.path().join("master.key"), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
            .expect("written");
        Self { home, store: store.to_owned(), clocks_differ: false }
    }

    /// A process with a data directory of its own.
    fn command(&self, role: &str, data: &str) -> Command {
        self.dressed(self.home.raworc(&[]), role, data)
    }

    /// The same of another binary.
    fn dressed(&self, mut command: Command, role: &str, data: &str) -> Command {
        command
            .args([role, "-o", "json", "--log", "warn", "--data", data])
            .env("RAWORC_STORE", &self.store)
            .env("RAWORC_MASTER_KEY_FILE", self.home.path().join("master.key"))
            .env("RAWORC_AGENTS__SOCKETS", self.home.path().join("sockets"));
        if self.clocks_differ {
            command.envs(clocks::variables(data));
        }
        if role == "server" {
            command.args(["--listen", "127.0.0.1:0", "--admin-password-file", "password"]);
        }
        command
    }

    /// A command about the store itself.
    fn with_store(&self, args: &[&str]) -> Command {
        let mut command = self.home.raworc(args);
        command.env("RAWORC_STORE", &self.store);
        command
    }

    fn server(&self, data: &str) -> Up {
        Up::of(self.command("server", data))
    }

    fn operator(&self, data: &str) -> Up {
        Up::of(self.command("operator", data))
    }

    /// Logs in at a server, and has commands go there.
    fn at<'a>(&'a self, server: &'a Up) -> At<'a> {
        let at = At { installation: self, url: &server.url };
        at.run(&["login", "admin", "--password-file", "password"]).ok();
        at
    }
}

/// The command line at one of the servers.
struct At<'a> {
    installation: &'a Installation,
    url: &'a str,
}

impl At<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.installation.home.raworc(args);
        command.env("RAWORC_SERVER", self.url);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("raworc runs"))
    }

    /// What it prints, where it succeeds.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[args, &["-o", "json"]].concat())).expect("JSON")
    }
}
