//! A computer as a container: what it is asked for, and whose it is.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountBindOptions, MountType, MountVolumeOptions, RestartPolicy, RestartPolicyNameEnum,
};
use raworc_core::agent::NetworkMode;
use raworc_core::ids::{ComputerId, VolumeId};
use raworc_core::runtime::{ComputerSpec, VOLUME_PATH};

use super::config::{DockerOptions, LINK_PATH, PROGRAM_PATH};
use super::program;

/// The label that says whose a container, a volume or a network is.
pub(super) const INSTALLATION: &str = "raworc.installation";

/// The label that says which computer a container is.
pub(super) const COMPUTER: &str = "raworc.computer";

/// The user and group of a program that is not root.
pub(super) const AGENT_UID: u64 = 1000;

/// What root inside may do: own and change files, change users, end processes, listen on low ports. None of it reaches
/// beyond the container, and installing packages needs all of it.
const ROOT_CAPABILITIES: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// The time in which a quota of processor time is had, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// What a container keeps of what its program writes: the newest of two files of this size.
const LOG_SIZE: &str = "8m";

/// The container of a computer.
pub(super) fn container_name(id: ComputerId) -> String {
    format!("raworc-{id}")
}

/// The engine's volume for a volume.
pub(super) fn volume_name(id: VolumeId) -> String {
    format!("raworc-{id}")
}

/// The network of an installation's open computers.
pub(super) fn network_name(installation: &str) -> String {
    format!("raworc-{installation}")
}

/// Whose something is.
pub(super) fn owner(installation: &str) -> HashMap<String, String> {
    HashMap::from([(INSTALLATION.into(), installation.into())])
}

/// Whether something with these labels is the installation's.
pub(super) fn is_own(labels: Option<&HashMap<String, String>>, installation: &str) -> bool {
    labels.and_then(|labels| labels.get(INSTALLATION)).is_some_and(|own| own == installation)
}

/// The computer that a container of this installation is; `None` for everybody else's containers.
pub(super) fn computer_of(labels: Option<&HashMap<String, String>>, installation: &str) -> Option<ComputerId> {
    labels?.get(COMPUTER)?.parse().ok().filter(|_| is_own(labels, installation))
}

pub(super) fn labels(container: &ContainerInspectResponse) -> Option<&HashMap<String, String>> {
    container.config.as_ref()?.labels.as_ref()
}

/// What the engine is asked for. `program` is the volume with the program, where there is one; with `has_home` a new volume
/// begins with what the image has in its place.
pub(super) fn asked(
    options: &DockerOptions,
    spec: &ComputerSpec,
    program: Option<&str>,
    has_home: bool,
) -> ContainerCreateBody {
    let mut labels = owner(&options.installation);
    labels.insert(COMPUTER.into(), spec.id.to_string());
    let user = if spec.root { 0 } else { AGENT_UID };
    ContainerCreateBody {
        image: Some(spec.image.clone().unwrap_or_else(|| options.default_image.clone())),
        // An image's own entry point is not the agent's program.
        entrypoint: Some(options.program.clone()),
        cmd: Some(Vec::new()),
        user: Some(format!("{user}:{user}")),
        env: Some(vec![format!("HOME={VOLUME_PATH}"), format!("RAWORC_HOME={VOLUME_PATH}")]),
        working_dir: Some(VOLUME_PATH.into()),
        labels: Some(labels),
        open_stdin: Some(true),
        stdin_once: Some(true),
        tty: Some(false),
        stop_signal: Some("SIGTERM".into()),
        // An image's own check would run beside the program, and ask for what is not begun.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(host_config(options, spec, program, has_home)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(options: &DockerOptions, spec: &ComputerSpec, program: Option<&str>, has_home: bool) -> HostConfig {
    let resources = &spec.resources;
    let mut home = volume_called(&volume_name(spec.volume), VOLUME_PATH, owner(&options.installation));
    if let Some(volume) = home.volume_options.as_mut().filter(|_| has_home) {
        volume.no_copy = None;
    }
    let mut mounts = vec![home];
    mounts.extend(shown(options, program));
    let memory = resources.memory.or(options.default_memory).map(|memory| signed(memory.get()));
    let cpu = resources.cpu.or(options.default_cpu).map(|cpu| i64::from(cpu.millis()) * CPU_PERIOD / 1000);
    HostConfig {
        mounts: Some(mounts),
        network_mode: Some(match spec.network.mode {
            NetworkMode::Closed => "none".into(),
            NetworkMode::Open => network_name(&options.installation),
        }),
        memory,
        // No swap beside it.
        memory_swap: memory,
        // As a quota: more than the machine has is refused as `NanoCpus`, and means no limit so.
        cpu_period: cpu.map(|_| CPU_PERIOD),
        cpu_quota: cpu,
        pids_limit: resources.pids.or(options.default_pids).map(i64::from),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: spec.root.then(|| ROOT_CAPABILITIES.map(Into::into).to_vec()),
        security_opt: Some(vec!["no-new-privileges".into()]),
        // Reaps what the program leaves behind.
        init: Some(true),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".into(), LOG_SIZE.into()), ("max-file".into(), "2".into())])),
        }),
        tmpfs: Some(HashMap::from([("/run/raworc".into(), "rw,nosuid,nodev,mode=1777,size=64m".into())])),
        ..HostConfig::default()
    }
}

/// What a computer is shown beside its own volume. On another machine that is the volume with the program, and nothing of
/// this one's.
fn shown(options: &DockerOptions, program: Option<&str>) -> Vec<Mount> {
    if options.remote {
        return program.map(|volume| program::mount(volume, &options.installation)).into_iter().collect();
    }
    let bind = |source: &Path, target: &str| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.into()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions { non_recursive: Some(true), ..MountBindOptions::default() }),
        ..Mount::default()
    };
    let link = options.link_dir.as_deref().map(|dir| bind(dir, LINK_PATH));
    link.into_iter().chain(options.program_file.as_deref().map(|file| bind(file, PROGRAM_PATH))).collect()
}

/// Whether a container shows what it would be shown if it were made now. Another one cannot be started any more, or with
/// an older program.
pub(super) fn shows(container: &ContainerInspectResponse, options: &DockerOptions, program: Option<&str>) -> bool {
    let mounts = container.mounts.as_deref().unwrap_or_default();
    shown(options, program).iter().all(|wanted| {
        let found = mounts.iter().find(|mount| mount.destination == wanted.target);
        found.is_some_and(|mount| match wanted.typ {
            Some(MountType::VOLUME) => mount.name == wanted.source,
            // As paths: the engine writes them its own way.
            _ => mount.source.as_deref().map(Path::new) == wanted.source.as_deref().map(Path::new),
        })
    })
}

/// A volume by its name, shown at this place. Nothing of the image is copied into it. Where it has gone meanwhile the engine
/// makes another one, with these labels.
pub(super) fn volume_called(name: &str, target: &str, labels: HashMap<String, String>) -> Mount {
    let volume = MountVolumeOptions { no_copy: Some(true), labels: Some(labels), ..MountVolumeOptions::default() };
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.into()),
        target: Some(target.into()),
        volume_options: Some(volume),
        ..Mount::default()
    }
}

pub(super) fn read_only(mount: Mount) -> Mount {
    Mount { read_only: Some(true), ..mount }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_with_both_labels_is_a_computer_of_the_installation() {
        let id: ComputerId = "0193a1b2-0000-7000-8000-000000000001".parse().expect("an id");
        let labels = |installation: &str, computer: &str| {
            HashMap::from([(INSTALLATION.into(), installation.into()), (COMPUTER.into(), computer.into())])
        };
        assert_eq!(computer_of(Some(&labels("own", &id.to_string())), "own"), Some(id));
        assert_eq!(computer_of(Some(&labels("other", &id.to_string())), "own"), None);
        assert_eq!(computer_of(Some(&labels("own", "no id")), "own"), None);
        assert_eq!(computer_of(Some(&owner("own")), "own"), None);
        assert_eq!(computer_of(None, "own"), None);
    }
}
