mod flawed;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use self::flawed::{Flaw, Flawed, Leaking};
use super::*;
use crate::runtime::simulated::{Profile, SimulatedOptions, SimulatedRuntime};

struct Subject(SimulatedRuntime);

#[async_trait]
impl RuntimeUnderTest for Subject {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.for_installation("neighbour"))
    }
}

/// A subject whose one runtime is broken.
struct Twin(Arc<Flawed>);

#[async_trait]
impl RuntimeUnderTest for Twin {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.0) as Arc<dyn Runtime>
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        if self.0.flaw == Flaw::KeepsAllInMemory {
            return Arc::new(SimulatedRuntime::new(SimulatedOptions::default().with_program(ScriptProgram)));
        }
        self.runtime()
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.inner.for_installation("neighbour"))
    }
}

fn engine(options: SimulatedOptions) -> SimulatedRuntime {
    let runtime = SimulatedRuntime::new(options);
    let missing = Subject(runtime.clone()).missing_image();
    runtime.control().lose_image(&missing, "nobody has it");
    runtime
}

#[tokio::test(start_paused = true)]
async fn the_simulated_runtime_passes_in_both_profiles_whatever_it_declares() {
    for profile in [Profile::Container, Profile::Pod] {
        for capabilities in [profile.capabilities(), Capabilities::default(), OPEN_ALONE] {
            for case in cases() {
                if why_ignored(&case, &capabilities).is_none() {
                    let options = SimulatedOptions::new(profile).with_program(ScriptProgram);
                    let subject = Subject(engine(options.with_capabilities(capabilities)));
                    case.run(Arc::new(subject)).await;
                }
            }
        }
    }
}

/// Its computers have a network, and nothing else is declared.
const OPEN_ALONE: Capabilities = Capabilities {
    images: false,
    root: false,
    open_network: true,
    closed_network: false,
    disk_limit: false,
    limits: false,
    tells_limits: false,
    keeps_root: false,
    copy_volume: false,
};

#[tokio::test(start_paused = true)]
async fn every_case_catches_its_broken_twin_by_a_sentence_of_the_contract() {
    const ALL: Capabilities = Capabilities {
        images: true,
        root: true,
        open_network: true,
        closed_network: true,
        disk_limit: true,
        limits: true,
        tells_limits: true,
        keeps_root: true,
        copy_volume: true,
    };
    // Closed networks are the least that there is.
    const NONE: Capabilities = Capabilities { open_network: false, closed_network: true, ..OPEN_ALONE };
    let mut wrong = Vec::new();
    for case in cases() {
        let flaw = flaw_for(case.name);
        let applies = |declared: &Capabilities| why_ignored(&case, declared).is_none();
        let declared = [ALL, NONE, OPEN_ALONE].into_iter().find(applies).expect("it applies to something");
        let real = match flaw {
            Flaw::TakesWhatIsNotDeclared => ALL,
            Flaw::DeclaresWhatItCannot if case.name == "a_computer_with_a_closed_network_is_made" => OPEN_ALONE,
            Flaw::DeclaresWhatItCannot => NONE,
            _ => declared,
        };
        let profile = if flaw == Flaw::LosesRoot { Profile::Pod } else { Profile::Container };
        let options = SimulatedOptions::new(profile).with_capabilities(real);
        let options = match flaw {
            Flaw::LeavesProcesses => options.with_program(Leaking),
            _ => options.with_program(ScriptProgram),
        };
        let twin = Arc::new(Twin(Arc::new(Flawed::new(engine(options), flaw, declared))));
        let (name, shows) = (case.name, case.shows);
        let caught = match tokio::spawn(async move { case.run(twin).await }).await {
            Ok(()) => "nothing".into(),
            Err(failure) => {
                let panic = failure.into_panic();
                let fixed = panic.downcast_ref::<&str>().copied().map(str::to_owned);
                fixed.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
            }
        };
        if !shows.iter().any(|id| caught.contains(id)) {
            wrong.push(format!("{name} of {flaw:?}: {caught}"));
        }
    }
    assert!(wrong.is_empty(), "not caught, or by the way only:\n{}", wrong.join("\n"));
}

/// The twin that a case has to catch.
fn flaw_for(case: &str) -> Flaw {
    match case {
        "an_image_is_unsupported_where_there_are_none"
        | "root_is_unsupported_where_it_is_not_given"
        | "an_open_network_is_unsupported_where_there_is_none"
        | "a_closed_network_is_unsupported_where_there_is_none"
        | "a_disk_limit_is_unsupported_where_there_is_none"
        | "limits_that_are_not_enforced_are_told"
        | "copying_a_volume_is_unsupported_where_it_is_not_declared" => Flaw::TakesWhatIsNotDeclared,
        "a_computer_with_an_open_network_is_made"
        | "a_computer_with_a_closed_network_is_made"
        | "a_computer_with_a_disk_limit_is_made"
        | "a_computer_with_limits_runs" => Flaw::DeclaresWhatItCannot,
        "prepare_of_an_image_that_is_there_does_nothing" => Flaw::PullsEachTime,
        "an_image_that_cannot_be_had_is_missing" => Flaw::NeverMissesAnImage,
        "ensure_makes_a_computer_and_again_changes_nothing" => Flaw::EnsureWipesTheVolume,
        "many_ensures_at_once_make_one_computer" => Flaw::EnsureConflictsWithWhatIsThere,
        "a_computer_is_new_until_its_first_start_and_after_its_removal" => Flaw::EnsureForgetsStarts,
        "ensure_leaves_a_running_computer_alone" => Flaw::EnsureRestarts,
        "a_program_is_root_where_its_spec_asks_for_it" => Flaw::EnsureForgetsRoot,
        "the_boot_line_reaches_the_program_on_its_standard_input" => Flaw::StartLosesTheAuthority,
        "each_start_has_its_own_boot_line" => Flaw::StartRepeatsTheFirstBootLine,
        "start_of_what_is_not_there_is_not_found" => Flaw::StartMakesWhatIsNotThere,
        "start_of_what_runs_is_refused_and_changes_nothing" => Flaw::StartRestarts,
        "start_of_what_is_stopping_is_refused" => Flaw::StartHastensAStop,
        "of_many_starts_at_once_one_succeeds" => Flaw::StartIsIdempotent,
        "observe_tells_the_start_until_the_program_ends" => Flaw::IdentityChanges,
        "no_two_starts_have_the_same_identity" => Flaw::IdentityIsTheComputers,
        "stop_leaves_no_process_not_even_a_double_forked_one"
        | "remove_takes_a_running_computer_with_every_process" => Flaw::LeavesProcesses,
        "stop_asks_a_program_to_end_and_gives_it_its_grace" => Flaw::StopDoesNotAsk,
        "a_program_that_will_not_end_is_ended_after_its_grace" => Flaw::StopNeverKills,
        "many_stops_at_once_all_wait_for_the_end" => Flaw::StopDoesNotWait,
        "stop_of_an_earlier_start_leaves_the_present_one_alone" => Flaw::StopIgnoresTheIdentity,
        "stop_of_what_does_not_run_succeeds" => Flaw::StopMissesWhatDoesNotRun,
        "files_on_the_volume_survive_stop_start_and_remove" => Flaw::RemoveTakesTheVolume,
        "files_outside_the_volume_survive_where_it_is_declared" => Flaw::LosesRoot,
        "a_copied_volume_lives_apart_from_its_source" => Flaw::CopyIsAnAlias,
        "no_computer_sees_the_volume_of_another" => Flaw::OneVolumeForAll,
        "remove_takes_a_stopped_computer_and_leaves_its_volume" => Flaw::RemovePretends,
        "remove_of_what_is_not_there_succeeds" => Flaw::RemoveMissesWhatIsNotThere,
        "remove_volume_takes_the_files_away" => Flaw::RemoveVolumePretends,
        "remove_volume_of_what_is_not_there_succeeds" => Flaw::RemoveVolumeMissesWhatIsNotThere,
        "a_volume_is_told_to_be_there_until_it_is_removed" => Flaw::HasVolumeMakesIt,
        "observe_of_what_is_not_there_is_none" => Flaw::ObserveInvents,
        "a_program_that_ended_is_stopped" => Flaw::ObserveIsStale,
        "list_tells_all_computers_of_this_installation_and_no_others" => Flaw::ListTellsOthers,
        "watch_tells_a_start" => Flaw::WatchMissesStarts,
        "watch_tells_an_end" => Flaw::WatchMissesEnds,
        "watch_tells_a_removal" => Flaw::WatchMissesRemovals,
        "memory_that_ran_out_is_told_while_the_program_lives_on" => Flaw::ObserveHidesLimits,
        "too_many_processes_are_told_while_the_program_lives_on" => Flaw::WatchMissesLimits,
        "limits_that_were_reached_are_told_until_the_next_start" => Flaw::LimitsAreForgottenAtTheEnd,
        "logs_begin_with_the_last_starts_first_byte" => Flaw::LogsLoseTheFirstByte,
        "logs_are_there_after_a_program_ended_by_itself" => Flaw::LogsAreGoneWithTheProgram,
        "a_tail_of_the_log_is_its_last_bytes" => Flaw::TailCountsLines,
        "logs_that_are_followed_go_on_until_the_program_ends" => Flaw::LogsDoNotFollow,
        "logs_of_what_is_not_there_are_not_found" => Flaw::LogsOfNothingAreEmpty,
        "another_handle_sees_and_stops_what_the_first_one_started"
        | "another_handle_removes_what_the_first_one_made" => Flaw::KeepsAllInMemory,
        "an_ensure_that_was_cut_short_is_finished_by_another" => Flaw::EnsureIsLockedWhenCutShort,
        "a_start_that_was_cut_short_can_be_stopped_and_started_again" => Flaw::StartIsLockedWhenCutShort,
        "a_stop_that_was_cut_short_is_finished_by_another" => Flaw::StopIsLockedWhenCutShort,
        "a_removal_that_was_cut_short_is_finished_by_another" => Flaw::RemoveIsLockedWhenCutShort,
        other => panic!("{other} has no twin: break the contract in one more way, and see that the case catches it"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_case_that_does_not_apply_fails_rather_than_seem_to_pass() {
    let case = cases().into_iter().find(|case| case.name == "a_copied_volume_lives_apart_from_its_source");
    let case = case.expect("listed");
    let bare = Capabilities::default();
    assert_eq!(why_ignored(&case, &bare), Some("copy_volume is not declared"));
    let subject = Subject(engine(SimulatedOptions::default().with_capabilities(bare)));
    let outcome = tokio::spawn(async move { case.run(Arc::new(subject)).await }).await;
    assert!(outcome.expect_err("fails").is_panic());
}

#[tokio::test(start_paused = true)]
async fn the_suite_leaves_nothing_behind_even_where_a_case_fails() {
    for case in cases() {
        let runtime = engine(SimulatedOptions::default().with_program(ScriptProgram));
        let control = runtime.control();
        let flawed = Flawed::new(runtime, flaw_for(case.name), Profile::Container.capabilities());
        if why_ignored(&case, &flawed.declared).is_none() && flawed.flaw != Flaw::RemoveVolumePretends {
            let twin = Arc::new(Twin(Arc::new(flawed)));
            // Whether the case fails is not the matter here.
            let name = case.name;
            let _outcome = tokio::spawn(async move { case.run(twin).await }).await;
            assert_eq!(control.running(), [], "{name}");
            assert_eq!(control.volumes(), [], "{name}");
        }
    }
}

#[test]
fn every_sentence_of_the_contract_has_a_case_and_every_case_a_sentence() {
    let source = include_str!("../../runtime.rs");
    let sentences: BTreeSet<&str> = source.lines().filter_map(sentence).collect();
    let shown: BTreeSet<&str> = cases().iter().flat_map(|case| case.shows.iter().copied()).collect();
    assert!(sentences.len() >= 23, "the contract is not where this test looks for it: {sentences:?}");
    assert_eq!(sentences, shown);
}

/// The id in a line such as "/// - `R1` `prepare` of ...".
fn sentence(line: &str) -> Option<&str> {
    line.trim().strip_prefix("/// - `")?.split_once('`').map(|(id, _)| id).filter(|id| id.starts_with('R'))
}
