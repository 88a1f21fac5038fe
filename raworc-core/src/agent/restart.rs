//! What of an agent's spec waits for its next start.

use sha2::{Digest, Sha256};

use super::{Agent, Network, SetupRecord, Status};
use crate::computer::Computer;
use crate::ids::{ComputerId, VolumeId};
use crate::runtime::ComputerSpec;

impl SetupRecord {
    /// SHA-256 of a setup script in hexadecimal, as records and reports bear it.
    pub(crate) fn hash_of(script: &str) -> String {
        hex::encode(Sha256::digest(script.as_bytes()))
    }
}

impl Status {
    /// Whether the setup script of this hash has run well on this computer, and none after it.
    pub(crate) fn is_set_up(&self, computer: ComputerId, hash: &str) -> bool {
        let well = |setup: &SetupRecord| setup.computer == computer && setup.hash == hash && setup.failure.is_none();
        self.setup.as_ref().is_some_and(well)
    }
}

impl Agent {
    /// What an engine is asked for: the agent's wishes that are the engine's to fulfil, on a computer and volume that are
    /// decided on.
    pub(crate) fn wanted(&self, id: ComputerId, volume: VolumeId, disk_limit: bool) -> ComputerSpec {
        let spec = &self.spec;
        ComputerSpec {
            id,
            volume,
            image: spec.image.clone(),
            // A limit that is measured takes effect at once.
            resources: spec.resources.of_engine(disk_limit),
            // What its list names is asked at each connection, and is no engine's.
            network: Network { mode: spec.network.mode, egress: Vec::new() },
            root: spec.root,
        }
    }

    /// The fields of its spec that its computer was not made from: they take effect at its next start.
    pub(crate) fn waits_for_start(&self, computer: &Computer) -> Vec<&'static str> {
        // All fields by name, so that one that is added has to be thought of here.
        let ComputerSpec { id, volume, image, resources, network, root } = &computer.spec;
        let wanted = self.wanted(*id, *volume, computer.disk_limit);
        let waiting = [
            ("image", wanted.image != *image),
            ("resources", wanted.resources != *resources),
            ("network", wanted.network != *network),
            ("root", wanted.root != *root),
            ("setup", self.setup_waits(*id)),
        ];
        waiting.into_iter().filter_map(|(field, waits)| waits.then_some(field)).collect()
    }

    fn setup_waits(&self, computer: ComputerId) -> bool {
        let Some(hash) = self.spec.setup.as_deref().map(SetupRecord::hash_of) else { return false };
        match &self.status.run {
            // Its program will be told the newest, unless it was told one already.
            Some(run) if !run.ending && run.ready_at.is_none() => {
                run.setup.as_ref().is_some_and(|handed| handed.hash != hash)
            }
            Some(_) | None => !self.status.is_set_up(computer, &hash),
        }
    }
}
