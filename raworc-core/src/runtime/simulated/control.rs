//! What a test does to a simulated engine, and sees of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Engine, Image, Removal, locked};
use super::faults::{Fault, Injected, Method, Rule};
use crate::ids::{ComputerId, VolumeId};
use crate::runtime::{Observed, StartId};

/// The test's hand on a simulated engine. Nothing here has latency or faults.
#[derive(Clone)]
pub struct SimulatedControl {
    pub(super) engine: Arc<Engine>,
}

impl SimulatedControl {
    /// Lets something go wrong from now on.
    pub fn inject(&self, rule: Rule) -> Injected {
        let stale = if matches!(rule.fault, Fault::Stale) { self.engine.list(None) } else { Vec::new() };
        locked(&self.engine.faults).inject(rule, stale)
    }

    /// Takes every rule back. Calls that hang go on.
    pub fn heal(&self) {
        locked(&self.engine.faults).release_all();
    }

    /// How often this method was called, whatever became of it.
    #[must_use]
    pub fn calls(&self, method: Method) -> u64 {
        self.engine.calls(method)
    }

    /// Every computer as it is, of every installation.
    #[must_use]
    pub fn computers(&self) -> Vec<Observed> {
        self.engine.list(None)
    }

    /// One computer as it is.
    #[must_use]
    pub fn computer(&self, id: ComputerId) -> Option<Observed> {
        self.engine.observe(id)
    }

    /// The computers in which something runs, or is about to stop.
    #[must_use]
    pub fn running(&self) -> Vec<(ComputerId, StartId)> {
        let all = self.engine.list(None).into_iter();
        all.filter_map(|observed| Some((observed.computer, observed.phase.start()?.clone()))).collect()
    }

    /// How many processes live in a computer: its program, and what that left behind.
    #[must_use]
    pub fn processes(&self, id: ComputerId) -> usize {
        self.engine.processes(id)
    }

    /// A computer's address.
    #[must_use]
    pub fn address(&self, id: ComputerId) -> Option<u64> {
        self.engine.address(id)
    }

    /// The volumes that exist.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeId> {
        self.engine.volumes().into_keys().collect()
    }

    /// A file on a volume, by its path below `/agent`.
    #[must_use]
    pub fn volume_file(&self, volume: VolumeId, path: &str) -> Option<Bytes> {
        self.engine.volume(volume)?.get(path).cloned()
    }

    /// Writes a file on a volume, as a command in its computer would.
    pub fn write_volume_file(&self, volume: VolumeId, path: &str, content: impl Into<Bytes>) {
        self.engine.write_volume_file(volume, path, content.into());
    }

    /// Ends a computer's program as a crash would, with this reason. Says whether there was one.
    pub fn crash(&self, id: ComputerId, reason: &str) -> bool {
        self.engine.crash(id, reason)
    }

    /// From now on limits are not enforced, for this reason, and computers that are made or started again are told so;
    /// `None` takes it back.
    pub fn lose_limits(&self, reason: Option<&str>) {
        self.engine.lose_limits(reason);
    }

    /// A process in a computer is ended because memory ran out. Its program lives on.
    pub fn run_out_of_memory(&self, id: ComputerId) {
        self.engine.reach(id, |reached| reached.memory = true);
    }

    /// A computer has no room for one more process.
    pub fn run_out_of_pids(&self, id: ComputerId) {
        self.engine.reach(id, |reached| reached.pids = true);
    }

    /// Ends every program, as when the machine is switched off and on.
    pub fn crash_all(&self, reason: &str) {
        for (id, _) in self.running() {
            self.engine.crash(id, reason);
        }
    }

    /// Takes a computer away behind the back of whoever made it. Its volume stays.
    pub async fn lose(&self, id: ComputerId) {
        while let Removal::Runs(ended) = self.engine.try_remove(id) {
            ended.cancelled().await;
        }
    }

    /// Takes a volume away with its files, behind the back of whoever made it.
    pub fn lose_volume(&self, id: VolumeId) {
        self.engine.set_volume(id, None);
    }

    /// Makes a volume with these files, as somebody would who has a copy of it.
    pub fn bring_volume(&self, id: VolumeId, files: impl IntoIterator<Item = (&'static str, &'static str)>) {
        let files = files.into_iter().map(|(path, content)| (path.to_owned(), Bytes::from_static(content.as_bytes())));
        self.engine.set_volume(id, Some(files.collect()));
    }

    /// From now on this image cannot be had.
    pub fn lose_image(&self, image: &str, reason: &str) {
        self.engine.set_image(image, Some(Image::Missing(reason.into())));
    }

    /// From now on no program begins in computers of this image, for this reason.
    pub fn make_unfit(&self, image: &str, reason: &str) {
        self.engine.set_image(image, Some(Image::Unfit(reason.into())));
    }

    /// From now on this image can be had, and has to be pulled first.
    pub fn offer_image(&self, image: &str) {
        self.engine.set_image(image, None);
    }

    /// Ends every stream of events that was begun.
    pub fn cut_events(&self) {
        self.engine.cut_events();
    }

    /// Waits until `holds`, looking again after every change.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut changes = self.engine.changes.subscribe();
        while !holds(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for SimulatedControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedControl").finish_non_exhaustive()
    }
}
