//! What sees to computers: the runtimes whose engines this process reaches, and the operator over them.

use raworc_core::control::ControlPlane;
use raworc_core::error::Error;
use raworc_core::ids::RuntimeName;
use raworc_core::operator::{Operator, OperatorSettings, Waiting};
use raworc_core::runtime::{Runtime, Runtimes};

use super::runtimes::Opened;
use crate::exit::{Exit, Failure};

/// An operator and its runtimes.
pub(super) struct Operating {
    opened: Opened,
    operator: Operator,
}

impl Operating {
    /// Begins to look after agents. `runtimes` are those that are open, as their programs reach the servers; other processes
    /// are told of them where there can be any.
    pub(super) async fn start(
        control: &ControlPlane,
        opened: Opened,
        runtimes: Runtimes,
        tell: bool,
    ) -> anyhow::Result<Self> {
        if tell {
            control.system().publish_runtimes().await.map_err(|error| match error {
                Error::Invalid { .. } => Failure::new(Exit::Usage, "this is not the engine that other operators have")
                    .because(error)
                    .hint("set docker.name or local.name, such as docker-2: agents ask for it by --runtime"),
                error => Failure::new(Exit::Failed, "servers cannot be told of the runtimes").because(error),
            })?;
        }
        let operator = Operator::start(control, runtimes, OperatorSettings::default()).await?;
        Ok(Self { opened, operator })
    }

    pub(super) fn waiting(&self) -> impl Fn() -> Waiting + Send + 'static + use<> {
        self.operator.waiting()
    }

    pub(super) fn runtime(&self, name: &RuntimeName) -> Option<&dyn Runtime> {
        self.opened.runtimes.get(name).map(|entry| &*entry.runtime)
    }

    pub(super) fn described(&self) -> &str {
        &self.opened.described
    }

    pub(super) fn computers_go_on(&self) -> bool {
        self.opened.go_on
    }

    /// Finishes what engines were asked for, and ends what ends with this process.
    pub(super) async fn shutdown(self) {
        self.operator.shutdown().await;
        self.opened.close().await;
    }
}
