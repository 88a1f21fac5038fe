//! The binary, as a person or a script runs it.

#[path = "cli/alone.rs"]
mod alone;
#[cfg(feature = "bench")]
#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/clock.rs"]
mod clock;
#[path = "cli/crashes.rs"]
mod crashes;
#[path = "cli/data.rs"]
mod data;
#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "cli/databases.rs"]
mod databases;
#[path = "cli/disk.rs"]
mod disk;
#[path = "cli/egress.rs"]
mod egress;
#[path = "cli/events.rs"]
mod events;
#[path = "cli/full_disk.rs"]
mod full_disk;
#[path = "cli/health.rs"]
mod health;
#[path = "cli/home.rs"]
mod home;
#[path = "cli/kept.rs"]
mod kept;
#[path = "cli/limits.rs"]
mod limits;
#[path = "cli/logs.rs"]
mod logs;
#[path = "cli/lossy.rs"]
mod lossy;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/serving.rs"]
mod serving;
#[path = "cli/store.rs"]
mod store;
#[path = "cli/talking.rs"]
mod talking;
#[cfg(feature = "otlp")]
#[path = "cli/traces.rs"]
mod traces;
#[path = "cli/up.rs"]
mod up;
