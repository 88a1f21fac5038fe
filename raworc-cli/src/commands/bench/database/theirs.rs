//! What the database's own processes cost, where it runs on this machine and may be looked at.

use std::fs;
use std::time::Duration;

use crate::commands::bench::process::Stat;

/// The process that listens, which has the others as its children where it has any.
pub(super) struct Theirs(u32);

impl Theirs {
    /// Who listens at this port of this machine; none where that cannot be told.
    pub(super) fn find(port: u16) -> Option<Self> {
        let sockets: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .flat_map(|table| table.lines().filter_map(|line| listening(line, port)).collect::<Vec<_>>())
            .collect();
        let holders = pids().filter(|pid| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| sockets.iter().any(|it| file == **it))
        });
        holders.min().map(Self)
    }

    /// Time that they have had on processors.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let first = Stat::of(self.0)?;
        // One that ends meanwhile is among what its parent says.
        let children = pids().filter_map(|pid| Stat::of(pid).ok()).filter(|stat| stat.parent == self.0);
        Ok(first.own + first.of_children + children.map(|stat| stat.own).sum::<Duration>())
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

/// The socket, as files name it, of a line of /proc/net/tcp where it listens at this port. The columns are those of proc(5).
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let at = fields.get(1)?.rsplit(':').next()?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(at, 16) == Ok(port);
    listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_at_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let found = Theirs::find(port).expect("this process");
        assert_eq!(found.0, std::process::id());
        assert!(found.cpu().expect("readable") < Duration::from_secs(3600));
        drop(listener);
        assert!(Theirs::find(port).is_none());
    }
}
