//! The suite that every [`Runtime`] passes.
//!
//! It knows no engine. Inside the computers it has a small program run whose doings come in the boot line
//! ([`Script`]) and which answers in its log: as [`SHELL_PROGRAM`] wherever there is a POSIX shell, as
//! [`ScriptProgram`] in the simulator. Tell it how to reach yours by [`RuntimeUnderTest`], and run each of [`cases`]
//! that applies on a subject of its own; `docs/how-to/write-a-runtime.md` shows how, with a harness.

mod files;
mod handles;
mod limits;
mod logs;
mod looking;
mod making;
mod removing;
mod scope;
mod script;
mod starting;
mod stopping;
#[cfg(test)]
mod tests;

pub use script::{InvalidScript, Op, SHELL_PROGRAM, Script, ScriptProgram};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Capabilities, Runtime, VOLUME_PATH};
use crate::conformance::Case;
use crate::ids::{ComputerId, VolumeId};

/// A runtime on an engine, as the suite needs it. Each case gets a fresh one and clears up behind itself.
///
/// The runtime is to start the suite's program in its computers in place of the agent's own.
#[async_trait]
pub trait RuntimeUnderTest: Send + Sync {
    /// The runtime.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Another handle for the same installation on the same engine, as another process would have it.
    async fn another_handle(&self) -> Arc<dyn Runtime>;

    /// A handle for another installation on the same engine.
    async fn another_installation(&self) -> Arc<dyn Runtime>;

    /// The image of the computers; the runtime's default for `None`.
    fn image(&self) -> Option<String> {
        None
    }

    /// An image that can be had nowhere.
    fn missing_image(&self) -> String {
        "localhost/raworc-conformance/nowhere:none".into()
    }

    /// Where a computer on this volume finds it.
    fn volume_path(&self, _volume: VolumeId) -> String {
        VOLUME_PATH.into()
    }

    /// A directory outside the volume in which the program may write.
    fn root_path(&self, _computer: ComputerId) -> String {
        "/var/tmp".into()
    }

    /// How long one call, or one thing that is waited for, may take. A whole case may take four times as long.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// What a case needs of a runtime so that it applies.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    With(Feature),
    Without(Feature),
}

#[derive(Clone, Copy)]
enum Feature {
    Images,
    Root,
    OpenNetwork,
    ClosedNetwork,
    DiskLimit,
    Limits,
    TellsLimits,
    KeepsRoot,
    CopyVolume,
}

impl Needs {
    /// Why a case with these needs does not apply.
    const fn unmet(self, capabilities: &Capabilities) -> Option<&'static str> {
        let (feature, is_wanted) = match self {
            Self::Nothing => return None,
            Self::With(feature) => (feature, true),
            Self::Without(feature) => (feature, false),
        };
        let (is_declared, declared, missing) = match feature {
            Feature::Images => (capabilities.images, "images is declared", "images is not declared"),
            Feature::Root => (capabilities.root, "root is declared", "root is not declared"),
            Feature::OpenNetwork => {
                (capabilities.open_network, "open_network is declared", "open_network is not declared")
            }
            Feature::ClosedNetwork => {
                (capabilities.closed_network, "closed_network is declared", "closed_network is not declared")
            }
            Feature::DiskLimit => (capabilities.disk_limit, "disk_limit is declared", "disk_limit is not declared"),
            Feature::Limits => (capabilities.limits, "limits is declared", "limits is not declared"),
            Feature::TellsLimits => {
                (capabilities.tells_limits, "tells_limits is declared", "tells_limits is not declared")
            }
            Feature::KeepsRoot => (capabilities.keeps_root, "keeps_root is declared", "keeps_root is not declared"),
            Feature::CopyVolume => (capabilities.copy_volume, "copy_volume is declared", "copy_volume is not declared"),
        };
        match (is_wanted, is_declared) {
            (true, true) | (false, false) => None,
            (true, false) => Some(missing),
            (false, true) => Some(declared),
        }
    }
}

struct Listed {
    needs: Needs,
    case: Case<dyn RuntimeUnderTest>,
}

/// A case by the function that is its body.
macro_rules! case {
    ($needs:expr, $shows:expr, $body:ident) => {
        $crate::runtime::conformance::Listed {
            needs: $needs,
            case: $crate::conformance::Case::new(&$shows, stringify!($body), |subject| {
                Box::pin($crate::runtime::conformance::applied(subject, $needs, $body))
            }),
        }
    };
}
use case;

/// Runs the body of a case. One that does not apply would show nothing, so it fails rather than seem to pass.
async fn applied<F, Fut>(subject: Arc<dyn RuntimeUnderTest>, needs: Needs, body: F)
where
    F: FnOnce(Arc<scope::Scope>) -> Fut + Send,
    Fut: Future<Output = ()> + Send,
{
    if let Some(reason) = needs.unmet(&subject.runtime().capabilities()) {
        panic!("the case does not apply: {reason}; ask why_ignored() before it is run");
    }
    scope::Scope::run(subject, body).await;
}

fn listed() -> impl Iterator<Item = Listed> {
    let parts = [
        making::cases(),
        starting::cases(),
        stopping::cases(),
        files::cases(),
        removing::cases(),
        looking::cases(),
        logs::cases(),
        limits::cases(),
        handles::cases(),
    ];
    parts.into_iter().flatten()
}

/// Every case of the suite. Those for which [`why_ignored`] has a reason are to be shown as ignored.
#[must_use]
pub fn cases() -> Vec<Case<dyn RuntimeUnderTest>> {
    listed().map(|listed| listed.case).collect()
}

/// Why this case does not apply to a runtime of these capabilities; `None` where it does.
#[must_use]
pub fn why_ignored(case: &Case<dyn RuntimeUnderTest>, capabilities: &Capabilities) -> Option<&'static str> {
    listed().find(|listed| listed.case.name == case.name)?.needs.unmet(capabilities)
}
