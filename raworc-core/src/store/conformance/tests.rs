//! The suite itself: the in-memory store passes it, every sentence has a case, and every case catches a broken twin.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{BlobStoreUnderTest, StoreUnderTest, blob_cases, cases};
use crate::blob::BlobStore;
use crate::conformance::Case;
use crate::ids::Revision;
use crate::store::memory::flawed::{Flaw, Flawed};
use crate::store::{MemoryStore, Store};

/// Memory, as the suite sees it.
#[derive(Default)]
struct Memory {
    opened: Mutex<Option<Arc<MemoryStore>>>,
}

#[async_trait]
impl StoreUnderTest for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        let store = Arc::new(MemoryStore::default());
        *self.opened.lock().expect("nothing panics under it") = Some(Arc::clone(&store));
        store
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }

    fn blobs(&self, _: &Arc<dyn Store>) -> Option<Arc<dyn BlobStore>> {
        self.opened.lock().expect("nothing panics under it").clone().map(|store| store as Arc<dyn BlobStore>)
    }

    async fn forget_log(&self, _: &Arc<dyn Store>, upto: Revision) {
        let opened = self.opened.lock().expect("nothing panics under it");
        opened.as_ref().expect("a case opens its store first").forget_log(upto);
    }
}

#[async_trait]
impl BlobStoreUnderTest for Memory {
    async fn open(&self) -> Arc<dyn BlobStore> {
        Arc::new(MemoryStore::default())
    }
}

/// Memory with a flaw, as the suite sees it.
struct Twin {
    flaw: Flaw,
    opened: Mutex<Option<Arc<Flawed>>>,
}

impl Twin {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, opened: Mutex::default() }
    }

    fn keep(&self, store: Arc<Flawed>) -> Arc<Flawed> {
        *self.opened.lock().expect("nothing panics under it") = Some(Arc::clone(&store));
        store
    }

    fn opened(&self) -> Arc<Flawed> {
        let opened = self.opened.lock().expect("nothing panics under it");
        Arc::clone(opened.as_ref().expect("a case opens its store first"))
    }
}

#[async_trait]
impl StoreUnderTest for Twin {
    async fn open(&self) -> Arc<dyn Store> {
        self.keep(Arc::new(Flawed::new(self.flaw)))
    }

    async fn reopen(&self, _: Arc<dyn Store>) -> Arc<dyn Store> {
        self.keep(self.opened().restart())
    }

    fn blobs(&self, _: &Arc<dyn Store>) -> Option<Arc<dyn BlobStore>> {
        Some(self.opened())
    }

    async fn forget_log(&self, _: &Arc<dyn Store>, upto: Revision) {
        self.opened().forget_log(upto);
    }
}

#[async_trait]
impl BlobStoreUnderTest for Twin {
    async fn open(&self) -> Arc<dyn BlobStore> {
        Arc::new(Flawed::new(self.flaw))
    }
}

/// For each case of the suite, in its order, a flaw that it must catch.
const TWINS: &[(&str, Flaw)] = &[
    ("of_many_who_want_a_name_one_gets_it", Flaw::NamesAreNotUnique),
    ("a_name_is_free_again_once_its_agent_is_deleted", Flaw::NamesStayTaken),
    ("a_name_may_be_used_in_every_tenant", Flaw::NamesOfAllTenants),
    ("a_deleted_agent_is_shown_by_its_id_alone", Flaw::DeletedIsHidden),
    ("deleting_cancels_what_had_not_ended_and_frees_the_computer", Flaw::InboxIsNotLoaded),
    ("reads_of_a_tenant_show_no_other_tenant", Flaw::TenantsByPrefix),
    ("a_selector_leaves_out_what_does_not_match_and_nothing_else", Flaw::SelectorIsIgnored),
    ("owners_and_states_are_told_apart", Flaw::OwnerIsIgnored),
    ("messages_and_steps_are_told_apart", Flaw::StepsOfAllMessages),
    ("computers_are_told_apart", Flaw::ReclaimIsIgnored),
    ("an_audit_row_says_who_did_what_and_where_it_stands_in_the_log", Flaw::AuditOneTooEarly),
    ("a_commit_that_fails_bears_no_audit_row", Flaw::AuditOnFailure),
    ("a_commit_sent_again_bears_no_second_audit_row", Flaw::NoDedupe),
    ("every_commit_of_many_writers_bears_one_audit_row", Flaw::AuditIsLossy),
    ("audit_rows_of_a_tenant_show_no_other_tenant", Flaw::AuditOfAllTenants),
    ("what_was_committed_is_there_after_a_restart", Flaw::ForgetsAtRestart),
    ("a_commit_that_fails_late_leaves_nothing_of_itself", Flaw::NotAtomic),
    ("a_failed_precondition_is_named_and_changes_nothing", Flaw::PreconditionsAreIgnored),
    ("commits_beside_one_that_fails_go_through", Flaw::FailsTheBatch),
    ("of_many_who_saw_the_same_status_one_goes_through", Flaw::LosesUpdates),
    ("changes_of_one_agent_are_not_lost_among_many_writers", Flaw::LosesUpdates),
    ("a_commit_sent_again_gets_its_first_result", Flaw::ResendIsAnsweredAnew),
    ("a_commit_sent_by_many_at_once_happens_once", Flaw::LosesUpdates),
    ("a_commit_sent_again_after_a_restart_gets_its_first_result", Flaw::ForgetsCommitsAtRestart),
    ("a_commit_that_deletes_an_agent_tells_nothing_of_its_inbox", Flaw::TellsAllThatItWrites),
    ("due_tells_every_agent_by_its_time_and_the_earliest_first", Flaw::DueIsReversed),
    ("due_follows_every_change_of_a_deadline", Flaw::DueIsStale),
    ("due_keeps_to_the_runtimes_and_the_limit_that_it_is_given", Flaw::DueOfAllRuntimes),
    ("a_key_gives_the_first_answer_again_and_changes_nothing", Flaw::KeysAreForgotten),
    ("a_key_that_was_used_for_another_request_is_a_conflict", Flaw::MismatchIsReplayed),
    ("a_key_belongs_to_its_principal_and_is_read_to_the_letter", Flaw::KeysOfAllPrincipals),
    ("of_many_requests_with_one_key_one_has_an_effect", Flaw::LosesUpdates),
    ("a_key_is_forgotten_after_its_time_and_when_its_commit_failed", Flaw::KeysNeverExpire),
    ("of_many_who_claim_a_lease_one_holds_it", Flaw::LeaseToEveryone),
    ("a_holder_renews_its_lease_and_keeps_its_epoch", Flaw::RenewalIsANewEpoch),
    ("a_lease_given_back_goes_to_the_next_with_a_higher_epoch", Flaw::EpochIsOne),
    ("a_lease_that_expired_has_a_higher_epoch_even_for_who_held_it", Flaw::EpochIsOne),
    ("a_lease_is_given_back_by_its_holder_alone", Flaw::AnyoneGivesBack),
    ("leases_are_listed_by_the_beginning_of_their_keys", Flaw::PrefixIgnoresCase),
    ("a_watcher_sees_every_event_once_and_in_order_while_many_write", Flaw::WatchSkips),
    ("a_watcher_may_begin_anywhere_in_the_log", Flaw::WatchRepeatsSince),
    ("a_watcher_is_told_of_what_comes_after_it_has_caught_up", Flaw::WatchIsASnapshot),
    ("a_filter_leaves_out_other_tenants_and_agents", Flaw::WatchIgnoresItsFilter),
    ("watching_from_before_the_start_of_the_log_is_gone", Flaw::GoneIsSilent),
    ("revisions_are_dense_over_all_writers", Flaw::RevisionsHaveGaps),
    ("a_commit_that_fails_takes_no_revision", Flaw::FailureTakesARevision),
    ("messages_are_numbered_in_the_order_of_the_log", Flaw::MessagesHaveGaps),
    ("steps_are_numbered_in_the_order_of_the_log", Flaw::StepsHaveGaps),
    ("pages_of_agents_follow_each_other_while_others_come_and_go", Flaw::PagesByOffset),
    ("pages_of_filtered_agents_follow_each_other", Flaw::ShortPageIsTheLast),
    ("pages_of_messages_follow_each_other_in_both_directions", Flaw::NewestFirstIgnoresTheCursor),
    ("pages_of_steps_and_audit_rows_follow_each_other_while_more_come", Flaw::StepPagesRepeat),
    ("pages_of_computers_follow_each_other", Flaw::ComputersIgnoreTheCursor),
    ("a_page_holds_no_more_than_its_limit_and_the_last_says_so", Flaw::LimitIsIgnored),
    ("a_page_of_large_rows_ends_early_and_the_next_goes_on", Flaw::PagesOfAnySize),
    ("each_kind_goes_by_its_own_time_and_what_is_younger_stays", Flaw::PurgeTakesWhatIsYoung),
    ("a_message_that_has_not_ended_stays_with_its_steps_and_all_behind_it", Flaw::PurgeTakesWhatIsOpen),
    ("numbers_go_on_where_all_before_them_is_gone", Flaw::PurgeReusesNumbers),
    ("a_call_takes_away_no_more_than_it_may_and_leads_on", Flaw::PurgeIgnoresTheLimit),
    ("a_deleted_agent_goes_once_its_computer_is_reclaimed", Flaw::PurgeForgetsComputers),
    ("a_blob_goes_once_no_message_has_referred_to_it_for_its_time", Flaw::PurgeForgetsReferences),
    ("blobs_go_a_few_at_a_time", Flaw::PurgeIgnoresTheLimit),
    ("who_watches_from_before_what_is_gone_is_told", Flaw::GoneIsSilent),
    ("a_commit_whose_events_are_gone_gets_its_first_result_again", Flaw::NoDedupe),
    ("messages_that_come_while_others_go_are_all_there", Flaw::PurgeTakesWhatIsOpen),
    ("a_quota_is_not_exceeded_by_many_writers", Flaw::LosesUpdates),
    ("a_commit_that_fails_leaves_the_quota_as_it_was", Flaw::QuotaBeforeCommit),
    ("what_is_given_back_can_be_used_again", Flaw::QuotaNeverShrinks),
    ("a_record_changes_against_the_version_that_the_writer_saw", Flaw::VersionIsIgnored),
    ("of_many_who_saw_the_same_version_one_changes_the_record", Flaw::LosesUpdates),
    ("records_of_one_kind_and_tenant_are_listed_by_name", Flaw::RecordsOfTheInstallation),
    ("a_record_is_gone_after_its_time", Flaw::RecordsNeverExpire),
    ("every_character_comes_back_in_messages", Flaw::TextLosesNul),
    ("the_longest_texts_come_back", Flaw::TextIsCut),
    ("texts_that_mean_something_to_a_database_come_back_everywhere", Flaw::EmptyIsNothing),
    ("times_of_rows_lie_between_the_reads_before_and_after_their_commit", Flaw::TimesOfTheWriter),
    ("now_is_not_before_the_times_of_the_rows_whoever_writes_meanwhile", Flaw::NowIsOld),
    ("times_come_back_as_the_commit_told_them", Flaw::TimesDrift),
    ("a_touch_moves_times_forward_and_never_back", Flaw::TouchMovesBack),
    ("a_touch_of_another_incarnation_has_no_effect", Flaw::TouchIgnoresIncarnation),
    ("touches_of_many_servers_leave_the_latest_time", Flaw::LosesUpdates),
    ("a_touch_changes_nothing_but_times_and_is_not_in_the_log", Flaw::TouchIsLogged),
    ("a_touch_of_a_slept_agent_has_no_effect_and_says_so", Flaw::TouchSaysNothing),
];

/// The same for blobs.
const BLOB_TWINS: &[(&str, Flaw)] = &[
    ("what_was_put_is_read_back_byte_for_byte", Flaw::BlobIsCut),
    ("content_put_again_is_one_blob", Flaw::BlobIsCounted),
    ("content_put_by_many_at_once_is_one_blob", Flaw::BlobIsLate),
    ("a_range_reads_the_bytes_that_it_names", Flaw::RangeIsInclusive),
    ("a_blob_of_another_tenant_is_not_there", Flaw::BlobsOfAllTenants),
    ("unlinking_forgets_a_blob_and_what_is_not_there_is_no_error", Flaw::UnlinkOfNothingFails),
];

async fn passes<T: ?Sized + Send + Sync + 'static>(cases: Vec<Case<T>>, subject: fn() -> Arc<T>) {
    for case in cases {
        let name = case.name;
        let run = tokio::spawn(async move { case.run(subject()).await });
        assert!(run.await.is_ok(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_in_memory_store_passes_every_case() {
    passes(cases(), || Arc::new(Memory::default()) as Arc<dyn StoreUnderTest>).await;
    passes(blob_cases(), || Arc::new(Memory::default()) as Arc<dyn BlobStoreUnderTest>).await;
}

/// Each case fails for its twin. What a twin never brings is not waited for: the time is paused.
fn caught<T: ?Sized + Send + Sync + 'static>(
    cases: Vec<Case<T>>,
    twins: &[(&str, Flaw)],
    subject: impl Fn(Flaw) -> Arc<T>,
) {
    let named: Vec<_> = twins.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, cases.iter().map(|case| case.name).collect::<Vec<_>>(), "each case has one twin");
    let mut missed = Vec::new();
    for (case, (name, flaw)) in cases.into_iter().zip(twins) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let subject = subject(*flaw);
        let run = async move { tokio::spawn(async move { case.run(subject).await }).await };
        if runtime.expect("a runtime").block_on(run).is_ok() {
            missed.push(format!("{name} does not see {flaw:?}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_case_catches_its_broken_twin() {
    caught(cases(), TWINS, |flaw| Arc::new(Twin::new(flaw)) as Arc<dyn StoreUnderTest>);
    caught(blob_cases(), BLOB_TWINS, |flaw| Arc::new(Twin::new(flaw)) as Arc<dyn BlobStoreUnderTest>);
}

/// The ids of the sentences in a contract's text.
fn sentences(source: &str) -> BTreeSet<&str> {
    let items = source.lines().filter_map(|line| line.trim_start().strip_prefix("/// - `"));
    items.map(|item| item.split('`').next().expect("a split has a first part")).collect()
}

fn shown<T: ?Sized>(cases: &[Case<T>]) -> BTreeSet<&'static str> {
    cases.iter().flat_map(|case| case.shows.iter().copied()).collect()
}

#[test]
fn every_sentence_of_a_contract_has_a_case_and_every_case_a_sentence() {
    let store = sentences(include_str!("../../store.rs"));
    let blobs = sentences(include_str!("../../blob.rs"));
    assert!(store.contains("S1") && blobs.contains("B1"), "the contracts are found");
    assert_eq!(shown(&cases()), store);
    assert_eq!(shown(&blob_cases()), blobs);
    assert!(cases().iter().all(|case| !case.shows.is_empty()));
}

#[test]
fn no_two_cases_share_a_name() {
    let names: Vec<_> = cases().iter().map(|case| case.name).chain(blob_cases().iter().map(|case| case.name)).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}
