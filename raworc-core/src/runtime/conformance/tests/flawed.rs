//! Runtimes that break the contract, each in one way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::ids::{ComputerId, RuntimeName, VolumeId};
use crate::runtime::simulated::{Inside, SimulatedProgram, SimulatedRuntime};
use crate::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LimitsReached, LogsOptions, Observed, Phase, Progress, Runtime,
    RuntimeError, RuntimeEvent, StartId,
};

use super::super::script::ScriptProgram;

/// One way to break the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The engine does what is not declared.
    TakesWhatIsNotDeclared,
    /// The engine refuses what is declared.
    DeclaresWhatItCannot,
    PullsEachTime,
    NeverMissesAnImage,
    EnsureWipesTheVolume,
    EnsureConflictsWithWhatIsThere,
    EnsureRestarts,
    EnsureForgetsRoot,
    EnsureForgetsStarts,
    StartLosesTheAuthority,
    StartRepeatsTheFirstBootLine,
    StartMakesWhatIsNotThere,
    StartRestarts,
    StartHastensAStop,
    StartIsIdempotent,
    IdentityChanges,
    IdentityIsTheComputers,
    LeavesProcesses,
    StopDoesNotAsk,
    StopNeverKills,
    StopDoesNotWait,
    StopIgnoresTheIdentity,
    StopMissesWhatDoesNotRun,
    RemoveTakesTheVolume,
    RemovePretends,
    RemoveMissesWhatIsNotThere,
    LosesRoot,
    CopyIsAnAlias,
    OneVolumeForAll,
    RemoveVolumePretends,
    RemoveVolumeMissesWhatIsNotThere,
    HasVolumeMakesIt,
    ObserveInvents,
    ObserveIsStale,
    ListTellsOthers,
    WatchMissesStarts,
    WatchMissesEnds,
    WatchMissesRemovals,
    ObserveHidesLimits,
    WatchMissesLimits,
    LimitsAreForgottenAtTheEnd,
    LogsLoseTheFirstByte,
    LogsAreGoneWithTheProgram,
    TailCountsLines,
    LogsDoNotFollow,
    LogsOfNothingAreEmpty,
    KeepsAllInMemory,
    EnsureIsLockedWhenCutShort,
    StartIsLockedWhenCutShort,
    StopIsLockedWhenCutShort,
    RemoveIsLockedWhenCutShort,
}

#[derive(Debug, Default)]
struct Memory {
    volumes: BTreeMap<ComputerId, VolumeId>,
    aliases: BTreeMap<VolumeId, VolumeId>,
    starts: BTreeMap<ComputerId, StartId>,
    line: Option<Boot>,
    locks: BTreeSet<ComputerId>,
    looks: u32,
}

/// A simulated runtime with a flaw.
#[derive(Debug)]
pub(super) struct Flawed {
    pub(super) inner: SimulatedRuntime,
    pub(super) flaw: Flaw,
    pub(super) declared: Capabilities,
    memory: Mutex<Memory>,
}

impl Flawed {
    pub(super) fn new(inner: SimulatedRuntime, flaw: Flaw, declared: Capabilities) -> Self {
        Self { inner, flaw, declared, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no case panics while it is held")
    }

    fn real(&self, id: ComputerId) -> Option<Phase> {
        self.inner.control().computer(id).map(|observed| observed.phase)
    }

    fn run(&self, id: ComputerId) -> Option<StartId> {
        self.real(id)?.start().cloned()
    }

    /// A lock that nobody takes away where its holder is dropped.
    async fn locked(&self, id: ComputerId, flaw: Flaw) -> Result<(), RuntimeError> {
        if self.flaw != flaw {
            return Ok(());
        }
        if !self.memory().locks.insert(id) {
            return Err(RuntimeError::Refused { what: "do it", reason: "it is being done".into() });
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    fn unlock(&self, id: ComputerId) {
        self.memory().locks.remove(&id);
    }

    fn shown(&self, observed: Observed) -> Observed {
        let last = self.memory().starts.get(&observed.computer).cloned();
        let phase = match (self.flaw, observed.phase, last) {
            (Flaw::IdentityChanges, Phase::Running(start), _) => {
                let mut memory = self.memory();
                memory.looks += 1;
                Phase::Running(StartId(format!("{start}-{}", memory.looks)))
            }
            (Flaw::IdentityIsTheComputers, Phase::Running(_), _) => {
                Phase::Running(StartId(observed.computer.to_string()))
            }
            (Flaw::ObserveIsStale, Phase::Stopped { .. }, Some(last)) => Phase::Running(last),
            (_, phase, _) => phase,
        };
        let is_over = matches!(phase, Phase::Stopped { .. });
        let reached = match self.flaw {
            Flaw::ObserveHidesLimits => LimitsReached::default(),
            Flaw::LimitsAreForgottenAtTheEnd if is_over => LimitsReached::default(),
            _ => observed.reached,
        };
        Observed { phase, reached, ..observed }
    }
}

#[async_trait::async_trait]
impl Runtime for Flawed {
    fn name(&self) -> &RuntimeName {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.declared
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        if self.flaw == Flaw::PullsEachTime {
            progress(Progress { what: "pulling".into(), done: 0, total: None });
        }
        let outcome = self.inner.prepare(image, progress).await;
        if self.flaw == Flaw::NeverMissesAnImage { Ok(()) } else { outcome }
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        let mut spec = spec.clone();
        {
            let mut memory = self.memory();
            if let Some(source) = memory.aliases.get(&spec.volume) {
                spec.volume = *source;
            }
            if self.flaw == Flaw::OneVolumeForAll
                && let Some(first) = memory.volumes.values().next()
            {
                spec.volume = *first;
            }
            memory.volumes.insert(spec.id, spec.volume);
        }
        let is_there = self.real(spec.id).is_some();
        match self.flaw {
            Flaw::EnsureWipesTheVolume if is_there => self.inner.remove_volume(spec.volume).await?,
            Flaw::EnsureConflictsWithWhatIsThere if is_there => {
                let reason = format!("the name {} is taken", spec.id);
                return Err(RuntimeError::Refused { what: "make a computer", reason });
            }
            Flaw::EnsureRestarts => {
                self.inner.control().crash(spec.id, "made anew");
                self.inner.control().until(|_| self.run(spec.id).is_none()).await;
            }
            Flaw::EnsureForgetsRoot => spec.root = false,
            _ => (),
        }
        self.locked(spec.id, Flaw::EnsureIsLockedWhenCutShort).await?;
        let mut outcome = self.inner.ensure(&spec).await;
        self.unlock(spec.id);
        if let (Flaw::EnsureForgetsStarts, Ok(ensured)) = (self.flaw, &mut outcome) {
            ensured.is_new = true;
        }
        outcome
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        let mut boot = boot.clone();
        match (self.flaw, self.run(id)) {
            (Flaw::StartLosesTheAuthority, _) => boot.ca = None,
            (Flaw::StartRepeatsTheFirstBootLine, _) => boot = self.memory().line.get_or_insert(boot).clone(),
            (Flaw::StartMakesWhatIsNotThere, None) if self.real(id).is_none() => return Ok(StartId("made-up".into())),
            (Flaw::StartRestarts, Some(start)) => self.inner.stop(id, &start, Duration::ZERO).await?,
            (Flaw::StartHastensAStop, Some(start)) if matches!(self.real(id), Some(Phase::Stopping(_))) => {
                self.inner.stop(id, &start, Duration::ZERO).await?;
            }
            (Flaw::StartIsIdempotent, Some(start)) => return Ok(start),
            _ => (),
        }
        self.locked(id, Flaw::StartIsLockedWhenCutShort).await?;
        let outcome = self.inner.start(id, &boot).await;
        self.unlock(id);
        let start = outcome?;
        self.memory().starts.insert(id, start.clone());
        Ok(if self.flaw == Flaw::IdentityIsTheComputers { StartId(id.to_string()) } else { start })
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        let mut start = start.clone();
        let mut grace = grace;
        match (self.flaw, self.run(id)) {
            (Flaw::StopDoesNotAsk, Some(_)) => {
                self.inner.control().crash(id, "killed");
                self.inner.control().until(|_| self.run(id).is_none()).await;
            }
            (Flaw::StopNeverKills, _) => grace = Duration::from_secs(1 << 20),
            (Flaw::StopDoesNotWait, Some(_)) if matches!(self.real(id), Some(Phase::Stopping(_))) => return Ok(()),
            (Flaw::StopIgnoresTheIdentity | Flaw::IdentityIsTheComputers, Some(present)) => start = present,
            (Flaw::StopMissesWhatDoesNotRun, None) => return Err(RuntimeError::NotFound(id)),
            _ => (),
        }
        self.locked(id, Flaw::StopIsLockedWhenCutShort).await?;
        let outcome = self.inner.stop(id, &start, grace).await;
        self.unlock(id);
        outcome
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        match self.flaw {
            Flaw::RemovePretends => return Ok(()),
            Flaw::RemoveMissesWhatIsNotThere if self.real(id).is_none() => return Err(RuntimeError::NotFound(id)),
            _ => (),
        }
        self.locked(id, Flaw::RemoveIsLockedWhenCutShort).await?;
        let outcome = self.inner.remove(id).await;
        self.unlock(id);
        let volume = self.memory().volumes.get(&id).copied();
        if let (Flaw::RemoveTakesTheVolume, Some(volume)) = (self.flaw, volume) {
            self.inner.remove_volume(volume).await?;
        }
        outcome
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        let observed = self.inner.observe(id).await?.map(|observed| self.shown(observed));
        let stopped = Phase::Stopped { reason: None };
        let invented = Observed { computer: id, phase: stopped, reached: LimitsReached::default() };
        Ok(observed.or((self.flaw == Flaw::ObserveInvents).then_some(invented)))
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        match self.flaw {
            Flaw::ListTellsOthers => Ok(self.inner.control().computers()),
            _ => self.inner.list().await,
        }
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        let (control, flaw) = (self.inner.control(), self.flaw);
        let events = self.inner.watch().await?.filter(move |event| {
            let observed = match event {
                RuntimeEvent::Changed(id) => control.computer(*id),
                RuntimeEvent::Relist => None,
            };
            let reached = observed.as_ref().map(|observed| observed.reached).unwrap_or_default();
            let phase = observed.map(|observed| observed.phase);
            let is_missed = match flaw {
                Flaw::WatchMissesStarts => matches!(phase, Some(Phase::Running(_))),
                Flaw::WatchMissesEnds => matches!(phase, Some(Phase::Stopped { .. })),
                Flaw::WatchMissesRemovals => phase.is_none(),
                Flaw::WatchMissesLimits => reached.pids,
                _ => false,
            };
            std::future::ready(!is_missed)
        });
        Ok(events.boxed())
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        let whole = async || {
            let mut log = Vec::new();
            let mut chunks = self.inner.logs(id, LogsOptions::default()).await?;
            while let Some(chunk) = chunks.next().await {
                log.extend_from_slice(&chunk?);
            }
            Ok::<_, RuntimeError>(log)
        };
        let log: Vec<u8> = match (self.flaw, self.real(id)) {
            (Flaw::LogsLoseTheFirstByte, Some(_)) => whole().await?.into_iter().skip(1).collect(),
            (Flaw::LogsAreGoneWithTheProgram, Some(Phase::Stopped { .. })) | (Flaw::LogsOfNothingAreEmpty, None) => {
                Vec::new()
            }
            (Flaw::TailCountsLines, Some(_)) => {
                let log = String::from_utf8(whole().await?).expect("a text");
                let lines: Vec<&str> = log.split_inclusive('\n').collect();
                let tail = options.tail.map_or(usize::MAX, |tail| usize::try_from(tail).expect("a small number"));
                lines[lines.len().saturating_sub(tail)..].concat().into_bytes()
            }
            (Flaw::LogsDoNotFollow, Some(_)) => return self.inner.logs(id, options.with_follow(false)).await,
            _ => return self.inner.logs(id, options).await,
        };
        Ok(stream::once(async { Ok(Bytes::from(log)) }).boxed())
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        if self.flaw == Flaw::HasVolumeMakesIt {
            self.inner.control().bring_volume(id, []);
        }
        self.inner.has_volume(id).await
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        if self.flaw == Flaw::CopyIsAnAlias {
            self.memory().aliases.insert(to, from);
        }
        self.inner.copy_volume(from, to).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        let is_there = self.inner.control().volumes().contains(&id);
        match self.flaw {
            Flaw::RemoveVolumePretends => Ok(()),
            Flaw::RemoveVolumeMissesWhatIsNotThere if !is_there => {
                Err(RuntimeError::Refused { what: "remove a volume", reason: format!("volume {id} is not there") })
            }
            _ => self.inner.remove_volume(id).await,
        }
    }
}

/// The suite's program, with a process that no engine knows of and that goes on with the ticks for ever.
#[derive(Debug)]
pub(super) struct Leaking;

#[async_trait::async_trait]
impl SimulatedProgram for Leaking {
    async fn run(&self, inside: Inside) -> crate::runtime::simulated::Exit {
        let outside = inside.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if outside.read("/agent/ticks").is_some() {
                    outside.append("/agent/ticks", b"tick\n");
                }
            }
        });
        ScriptProgram.run(inside).await
    }
}
