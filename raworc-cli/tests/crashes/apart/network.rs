//! A machine for each process, as far as the network knows: a namespace each, on one bridge, any two of which can be cut off
//! from each other. Where this machine has none, each process has an address of the loopback, and nothing is cut.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rand::TryRng;
use rand::rngs::SysRng;

/// The machines, by the last number of their address.
pub(crate) const SERVERS: [u8; 2] = [1, 2];
pub(crate) const OPERATORS: [u8; 2] = [3, 4];
pub(crate) const DATABASE: u8 = 5;
pub(crate) const ENGINE: u8 = 6;
const TEST: u8 = 254;

pub(crate) const ALL: [u8; 6] = [SERVERS[0], SERVERS[1], OPERATORS[0], OPERATORS[1], DATABASE, ENGINE];

/// Pairs that have anything to say to each other. Of a server and who calls it, only what the server answers is lost.
pub(crate) const PAIRS: [(u8, u8); 15] = [
    (SERVERS[0], TEST),
    (SERVERS[1], TEST),
    (SERVERS[0], DATABASE),
    (SERVERS[1], DATABASE),
    (OPERATORS[0], DATABASE),
    (OPERATORS[1], DATABASE),
    (SERVERS[0], SERVERS[1]),
    (SERVERS[0], ENGINE),
    (SERVERS[1], ENGINE),
    (OPERATORS[0], ENGINE),
    (OPERATORS[1], ENGINE),
    (SERVERS[0], OPERATORS[0]),
    (SERVERS[0], OPERATORS[1]),
    (SERVERS[1], OPERATORS[0]),
    (SERVERS[1], OPERATORS[1]),
];

/// Whose address this is no machine's: what is sent there is lost without a word, as by a cable that is pulled.
const NOBODY: &str = "02:00:00:00:00:01";

/// The network of one test. It goes with it.
#[derive(Debug)]
pub(crate) struct Network {
    /// The first three numbers of each address.
    prefix: String,
    spaces: Option<Spaces>,
    cut: Mutex<Vec<(u8, u8)>>,
}

#[derive(Debug)]
struct Spaces {
    hub: Space,
    machines: Vec<(u8, Space)>,
}

/// A namespace, which lives as long as the process that holds it. That ends with this one, which is its standard input.
#[derive(Debug)]
struct Space(Child);

impl Space {
    fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sh", "-c", "echo; exec cat >&2"]);
        holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = holder.spawn().map_err(|error| error.to_string())?;
        let mut said = [0];
        let begun = holder.stdout.take().is_some_and(|mut out| out.read_exact(&mut said).is_ok());
        let space = Self(holder);
        if begun { Ok(space) } else { Err("this user may make no network".into()) }
    }

    fn path(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.0.id())
    }

    /// Runs commands of `ip`, one a line.
    fn ip(&self, commands: &str) -> Result<(), String> {
        ip(Command::new("nsenter").arg(self.path()).args(["ip", "-batch", "-"]), commands)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(command: &mut Command, commands: &str) -> Result<(), String> {
    let (read, mut write) = std::io::pipe().map_err(|error| error.to_string())?;
    let child = command.stdin(read).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| format!("{command:?}: {error}"))?;
    std::io::Write::write_all(&mut write, commands.as_bytes()).map_err(|error| error.to_string())?;
    drop(write);
    // The command holds the end that is read from as well.
    command.stdin(Stdio::null());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip: {said}")) }
}

fn chance() -> u32 {
    SysRng.try_next_u32().expect("chance")
}

impl Network {
    /// One with namespaces; else one without, and why.
    pub(crate) fn new() -> (Self, Option<String>) {
        match Self::spaced() {
            Ok(network) => (network, None),
            Err(reason) => {
                let [a, b, ..] = chance().to_le_bytes();
                let prefix = format!("127.{}.{}", a.max(1), b);
                (Self { prefix, spaces: None, cut: Mutex::default() }, Some(reason))
            }
        }
    }

    fn spaced() -> Result<Self, String> {
        // Addresses that are set aside for measurements, so that they are nobody's.
        let number = chance();
        let prefix = format!("198.{}.{}", 18 + number % 2, number / 2 % 256);
        let hub = Space::new()?;
        hub.ip("link add name br0 type bridge\nlink set dev br0 up\n")?;
        let mut machines = Vec::new();
        for machine in ALL {
            let space = Space::new()?;
            let holder = space.0.id();
            hub.ip(&format!(
                "link add name n{machine} type veth peer name eth0 netns {holder}\nlink set dev n{machine} master br0 up\n"
            ))?;
            space
                .ip(&format!("addr add {prefix}.{machine}/24 dev eth0\nlink set dev eth0 up\nlink set dev lo up\n"))?;
            machines.push((machine, space));
        }
        let (own, id) = (format!("rw{number:08x}"), std::process::id());
        hub.ip(&format!(
            "link add name n{TEST} type veth peer name {own} netns {id}\nlink set dev n{TEST} master br0 up\n"
        ))?;
        ip(
            Command::new("ip").args(["-batch", "-"]),
            &format!("addr add {prefix}.{TEST}/24 dev {own}\nlink set dev {own} up\n"),
        )?;
        Ok(Self { prefix, spaces: Some(Spaces { hub, machines }), cut: Mutex::default() })
    }

    /// Whether anything can be cut.
    pub(crate) const fn has_cuts(&self) -> bool {
        self.spaces.is_some()
    }

    /// An address of a machine.
    pub(crate) fn address(&self, machine: u8, port: u16) -> SocketAddr {
        format!("{}.{machine}:{port}", self.prefix).parse().expect("an address")
    }

    /// What a command on this machine begins with.
    pub(crate) fn on(&self, machine: u8) -> Vec<String> {
        match self.space(machine) {
            Some(space) => vec!["nsenter".into(), space.path()],
            None => vec!["env".into()],
        }
    }

    fn space(&self, machine: u8) -> Option<&Space> {
        self.spaces.as_ref()?.machines.iter().find(|(number, _)| *number == machine).map(|(_, space)| space)
    }

    /// Nothing that one of them sends reaches the other from now on, and neither is told.
    pub(crate) fn cut(&self, a: u8, b: u8) -> Result<(), String> {
        let lost = |to: u8| format!("neigh replace {}.{to} lladdr {NOBODY} dev eth0 nud permanent\n", self.prefix);
        self.cut.lock().expect("no panic").push((a, b));
        self.both(a, b, lost)
    }

    /// Takes a cut back.
    pub(crate) fn heal(&self, a: u8, b: u8) -> Result<(), String> {
        self.cut.lock().expect("no panic").retain(|pair| *pair != (a, b));
        self.both(a, b, |to| format!("neigh del {}.{to} dev eth0\n", self.prefix))
    }

    /// Takes all of them back.
    pub(crate) fn heal_all(&self) -> Result<(), String> {
        let cut = self.cut.lock().expect("no panic").clone();
        cut.into_iter().try_for_each(|(a, b)| self.heal(a, b))
    }

    fn both(&self, a: u8, b: u8, command: impl Fn(u8) -> String) -> Result<(), String> {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(space) = self.space(from) {
                space.ip(&command(to))?;
            }
        }
        Ok(())
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        // The machines first: what joins them goes with them.
        self.machines.clear();
        let _ = self.hub.ip("link del dev br0\n");
    }
}
