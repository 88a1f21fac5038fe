//! The program that is put into agents' computers, and the models behind the gateway.

use std::path::PathBuf;
use std::time::Duration;

use raworc_http::server::agents::gateway::{GatewayLimits, UpstreamConfig, UpstreamModel, Upstreams};

use crate::exit::{Exit, Failure};
use crate::session::config_dir;
use crate::settings::Settings;

/// How long a model may take to answer when it is asked whether it does; a large one is loaded first.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// The models of the configuration, behind the gateway. The first one is the default.
pub(super) fn upstreams(settings: &Settings) -> anyhow::Result<Upstreams> {
    let mut configs = Vec::new();
    for model in settings.all_models() {
        let served = UpstreamModel { name: model.name.clone(), context: model.context, vision: model.vision };
        configs.push(UpstreamConfig {
            name: model.name.clone(),
            kind: model.wire,
            url: model.url.clone(),
            key: model.secret()?,
            models: vec![served],
        });
    }
    let made = Upstreams::new(configs, GatewayLimits::default());
    Ok(made
        .map_err(|error| Failure::new(Exit::Usage, "the models of the configuration cannot be used").because(error))?)
}

/// Whether the default model answers, or why it does not.
pub(super) async fn model_answers(upstreams: &Upstreams) -> Result<(), String> {
    match upstreams.probe(PROBE_LIMIT).await.into_iter().next() {
        None => Err("no model is configured".to_owned()),
        Some(probe) => probe.fault.map_or(Ok(()), |fault| Err(fault.to_string())),
    }
}

/// What no computer may be shown: the data, the log, the files of keys and passwords, and the logins of this user.
pub(super) fn private(settings: &Settings) -> Vec<PathBuf> {
    let mut paths = vec![settings.data.clone(), settings.master_key_path()];
    paths.extend(settings.admin_password_file.clone());
    paths.extend(settings.log_dir.clone().filter(|directory| directory.exists()));
    paths.extend(settings.all_models().filter_map(|model| model.key_file.clone()));
    // Some users' home directories are shown, and hold nothing of ours.
    paths.extend(config_dir().ok().filter(|directory| directory.exists()));
    paths
}

/// The program's file and its arguments: `RAWORC_AGENTD`, else `raworc-agentd` beside this binary, else this binary.
pub(super) fn find() -> Result<(PathBuf, Vec<String>), Failure> {
    if let Some(path) = std::env::var_os("RAWORC_AGENTD").filter(|path| !path.is_empty()).map(PathBuf::from) {
        if path.is_file() {
            return Ok((path, Vec::new()));
        }
        return Err(Failure::new(Exit::Usage, format!("RAWORC_AGENTD: there is no file {}", path.display()))
            .hint("unset it, or name the program raworc-agentd"));
    }
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Failed, "this binary's own file cannot be found").because(error))?;
    let beside = own.with_file_name("raworc-agentd");
    // In development the one beside may be of an older build, and this binary is always of this one.
    if !cfg!(debug_assertions) && beside.is_file() {
        return Ok((beside, Vec::new()));
    }
    Ok((own, vec!["agentd".to_owned()]))
}
