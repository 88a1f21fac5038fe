//! What the suite has run inside computers.
//!
//! A script travels in the boot line itself, as the address of the agents' listener, so that every case goes by the
//! way that a real program's boot goes, and nothing else has to reach into a computer. What it finds it writes to
//! its standard output, where the suite reads it by `logs`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;

use crate::runtime::Boot;
use crate::runtime::simulated::{Exit, Inside, SimulatedProgram};

/// The program as a script for a POSIX shell: let your runtime start `sh -c SHELL_PROGRAM` in its computers.
///
/// It needs `cat`, `id`, `mkdir`, `sleep` and `wc`, which every image with a shell has.
pub const SHELL_PROGRAM: &str = include_str!("program.sh");

/// What a script's address begins with.
const PREFIX: &str = "https://script.invalid/";

/// How often a process that was left behind writes.
const TICK: Duration = Duration::from_millis(100);

/// One thing that a program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Logs the boot line as it came.
    Boot,
    /// Logs this text.
    Log(String),
    /// Logs so many lines, `line 1`, `line 2`, ...
    Flood(u32),
    /// Writes a file: path and text.
    Write(String, String),
    /// Logs `read PATH TEXT`, or `read PATH absent`.
    Read(String),
    /// Logs `count PATH N`, the number of lines in a file.
    Count(String),
    /// Leaves a process behind by a double fork. It does not end when asked, and writes a line to this file every
    /// tenth of a second.
    Linger(String),
    /// When asked to end, writes a file and ends: path and text.
    OnStop(String, String),
    /// Does not end when asked.
    IgnoreStop,
    /// Leaves a process that takes memory until it is ended, and waits for its end.
    Hog,
    /// Makes so many processes at once, as far as it can, and waits for their end.
    Crowd(u32),
    /// Logs `uid N`.
    Uid,
    /// Waits so many seconds.
    Pause(u32),
    /// Ends with this code.
    Exit(i32),
    /// Waits until it is asked to end.
    Wait,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot => f.write_str("boot"),
            Self::Log(text) => write!(f, "log,{text}"),
            Self::Flood(lines) => write!(f, "flood,{lines}"),
            Self::Write(path, text) => write!(f, "write,{path},{text}"),
            Self::Read(path) => write!(f, "read,{path}"),
            Self::Count(path) => write!(f, "count,{path}"),
            Self::Linger(path) => write!(f, "linger,{path}"),
            Self::OnStop(path, text) => write!(f, "on-stop,{path},{text}"),
            Self::IgnoreStop => f.write_str("ignore-stop"),
            Self::Hog => f.write_str("hog"),
            Self::Crowd(processes) => write!(f, "crowd,{processes}"),
            Self::Uid => f.write_str("uid"),
            Self::Pause(seconds) => write!(f, "pause,{seconds}"),
            Self::Exit(code) => write!(f, "exit,{code}"),
            Self::Wait => f.write_str("wait"),
        }
    }
}

/// A text that is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no script of the suite")]
pub struct InvalidScript(String);

impl FromStr for Op {
    type Err = InvalidScript;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidScript(text.into());
        let mut words = text.splitn(3, ',');
        let name = words.next().unwrap_or_default();
        let mut word = || words.next().map(str::to_owned).ok_or_else(invalid);
        Ok(match name {
            "boot" => Self::Boot,
            "log" => Self::Log(word()?),
            "flood" => Self::Flood(word()?.parse().map_err(|_| invalid())?),
            "write" => Self::Write(word()?, word()?),
            "read" => Self::Read(word()?),
            "count" => Self::Count(word()?),
            "linger" => Self::Linger(word()?),
            "on-stop" => Self::OnStop(word()?, word()?),
            "ignore-stop" => Self::IgnoreStop,
            "hog" => Self::Hog,
            "crowd" => Self::Crowd(word()?.parse().map_err(|_| invalid())?),
            "uid" => Self::Uid,
            "pause" => Self::Pause(word()?.parse().map_err(|_| invalid())?),
            "exit" => Self::Exit(word()?.parse().map_err(|_| invalid())?),
            "wait" => Self::Wait,
            _ => return Err(invalid()),
        })
    }
}

/// What a program does, one after the other; then it ends with code 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script(pub Vec<Op>);

impl Script {
    /// The script as an address of the agents' listener, for the boot line.
    ///
    /// # Panics
    /// Where a path or text has a character that would not come through: quotes, backslashes, commas, semicolons.
    #[must_use]
    pub fn to_agent_url(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || " ,-./=_".contains(c);
        let ops: Vec<String> = self.0.iter().map(Op::to_string).collect();
        assert!(ops.iter().all(|op| op.chars().all(plain)), "plain words only: {ops:?}");
        format!("{PREFIX}{}", ops.join(";"))
    }

    /// The script in a boot message.
    ///
    /// # Errors
    /// [`InvalidScript`] where its address is none.
    pub fn from_boot(boot: &Boot) -> Result<Self, InvalidScript> {
        let invalid = || InvalidScript(boot.agent_url.clone());
        let ops = boot.agent_url.strip_prefix(PREFIX).ok_or_else(invalid)?;
        ops.split(';').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// The program for a [`SimulatedRuntime`](crate::runtime::simulated::SimulatedRuntime).
#[derive(Debug, Clone, Copy, Default)]
pub struct ScriptProgram;

/// What it does when it is asked to end.
enum OnStop {
    End,
    Ignore,
    Write(String, String),
}

impl OnStop {
    /// Waits until it ends because it was asked to.
    async fn ends(&self, inside: &Inside) -> Exit {
        match self {
            Self::End => inside.stop_asked().await,
            Self::Ignore => std::future::pending().await,
            Self::Write(path, text) => {
                inside.stop_asked().await;
                inside.write(path, text.clone());
            }
        }
        Exit(0)
    }
}

#[async_trait]
impl SimulatedProgram for ScriptProgram {
    async fn run(&self, inside: Inside) -> Exit {
        let Some(line) = inside.boot_line().await else { return Exit(1) };
        let script = Boot::from_line(&line).ok().and_then(|boot| Script::from_boot(&boot).ok());
        let Some(Script(ops)) = script else { return Exit(2) };
        let mut on_stop = OnStop::End;
        for op in ops {
            match op {
                Op::Boot => inside.log(&line),
                Op::Log(text) => inside.log(text + "\n"),
                Op::Flood(lines) => (1..=lines).for_each(|n| inside.log(format!("line {n}\n"))),
                Op::Write(path, text) => inside.write(&path, text),
                Op::Read(path) => match inside.read(&path) {
                    Some(text) => inside.log(format!("read {path} {}\n", String::from_utf8_lossy(&text))),
                    None => inside.log(format!("read {path} absent\n")),
                },
                Op::Count(path) => {
                    let text = inside.read(&path).unwrap_or_default();
                    inside.log(format!("count {path} {}\n", text.iter().filter(|&&byte| byte == b'\n').count()));
                }
                Op::Linger(path) => inside.spawn({
                    let inside = inside.clone();
                    async move {
                        loop {
                            inside.append(&path, b"tick\n");
                            tokio::time::sleep(TICK).await;
                        }
                    }
                }),
                Op::OnStop(path, text) => on_stop = OnStop::Write(path, text),
                Op::IgnoreStop => on_stop = OnStop::Ignore,
                Op::Hog => inside.hog_memory(),
                Op::Crowd(processes) => {
                    if inside.spec().resources.pids.is_some_and(|limit| processes > limit) {
                        inside.fork_without_end();
                    }
                }
                Op::Uid => inside.log(format!("uid {}\n", inside.uid())),
                Op::Pause(seconds) => {
                    let pause = Duration::from_secs(seconds.into());
                    if let Ok(exit) = tokio::time::timeout(pause, on_stop.ends(&inside)).await {
                        return exit;
                    }
                }
                Op::Exit(code) => return Exit(code),
                Op::Wait => return on_stop.ends(&inside).await,
            }
        }
        Exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ComputerId, Incarnation};

    #[test]
    fn a_script_comes_through_a_boot_line_as_it_was() {
        let path = || "/agent/a".to_owned();
        let script = Script(vec![
            Op::Boot,
            Op::Log("two words".into()),
            Op::Flood(3),
            Op::Write(path(), "b".into()),
            Op::Read(path()),
            Op::Count(path()),
            Op::Linger(path()),
            Op::OnStop(path(), "c".into()),
            Op::IgnoreStop,
            Op::Hog,
            Op::Crowd(9),
            Op::Uid,
            Op::Pause(2),
            Op::Exit(7),
            Op::Wait,
        ]);
        let boot = Boot {
            agent_url: script.to_agent_url(),
            ca: Some("-----\n\"".into()),
            computer: ComputerId::from_uuid(uuid::Uuid::from_u128(1)),
            incarnation: Incarnation(1),
            key: "k".into(),
        };
        let arrived = Boot::from_line(&boot.to_line()).expect("a boot line");
        assert_eq!(Script::from_boot(&arrived), Ok(script));
    }

    #[test]
    #[should_panic(expected = "plain words only")]
    fn a_text_that_a_shell_would_read_otherwise_is_refused() {
        let _url = Script(vec![Op::Log("$(reboot)".into())]).to_agent_url();
    }
}
