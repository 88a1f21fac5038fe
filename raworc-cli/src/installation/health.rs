//! How an operator that serves no API is: for whoever watches over it.

use raworc_core::control::ControlPlane;
use raworc_http::server::metrics::Figures;
use raworc_http::server::{ConnectionLimits, Options, health_router};
use tokio_util::sync::CancellationToken;

use super::api::{Api, Door};

/// `/livez`, `/readyz`, `/metrics` and `/version`.
pub(super) struct Health {
    api: Api,
    closing: CancellationToken,
}

impl Health {
    pub(super) fn start(
        control: &ControlPlane,
        (door, limits): (Door, ConnectionLimits),
        figures: Option<Figures>,
    ) -> Self {
        let closing = CancellationToken::new();
        let mut options = Options::default().with_closing(closing.clone()).with_operator_check(control);
        if let Some(figures) = figures {
            options = options.with_metrics(figures, false);
        }
        let api = door.serve(health_router(control.clone(), options), limits, &closing);
        Self { api, closing }
    }

    pub(super) fn url(&self) -> String {
        self.api.url()
    }

    pub(super) async fn close(self) {
        self.closing.cancel();
        self.api.close().await;
    }
}
