//! Runs seeds of the simulator.
//!
//! ```text
//! cargo test -p raworc-core --features simulator --test simulator -- [--seeds N] [--first SEED]
//! cargo test -p raworc-core --features simulator --test simulator -- --seed SEED [--faults 1,2,3|none]
//! ```
#![expect(clippy::print_stdout, reason = "a summary is what it is run for")]

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use raworc_core::simulator::{self, Counts, Report};

/// From so many seeds on, whatever never comes up fails the run. It is how many are run by themselves, and up to as many
/// more where something has not come up: the rarest does so a few times in this many.
const MANY: u64 = 300;

/// One in so many seeds is run twice, to see that its trace is the same.
const TWICE: u64 = 20;

struct Options {
    first: u64,
    seeds: Option<u64>,
    only: Option<u64>,
    faults: Option<Vec<usize>>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            println!("simulator: {error}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|panic| simulator::note_panic(panic.to_string())));
    match options.only {
        Some(seed) => one(seed, options.faults.as_deref()),
        None => many(&options),
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { first: 1, seeds: None, only: None, faults: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is not a number"));
        match argument.as_str() {
            "--seeds" => options.seeds = Some(number(value()?)?),
            "--first" => options.first = number(value()?)?,
            "--seed" => options.only = Some(number(value()?)?),
            "--faults" => options.faults = Some(numbers(&value()?)?),
            // What the ordinary harness is asked, too.
            "--quiet" | "-q" | "--nocapture" | "--no-capture" | "--show-output" => {}
            "--list" => return Ok(None),
            other if other.starts_with('-') => {
                return Err(format!("there is no {other}; see raworc-core/tests/simulator.rs"));
            }
            // A name of tests: of those that are wanted, none is here, unless it is this one.
            name if !"simulator".contains(name) => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(options))
}

fn numbers(text: &str) -> Result<Vec<usize>, String> {
    let words = text.split(',').filter(|word| !word.is_empty() && *word != "none");
    words.map(|word| word.parse().map_err(|_| format!("{word:?} is not the number of a fault"))).collect()
}

/// Runs one seed twice and shows its trace.
fn one(seed: u64, faults: Option<&[usize]>) -> ExitCode {
    let report = simulator::run(seed, faults);
    let again = simulator::run(seed, faults);
    println!("{report}");
    println!("trace {:016x}, {} lines, {:?} of paused time", report.hash, report.lines, report.time);
    if report.hash != again.hash {
        println!("simulator: seed {seed} does not repeat: the second trace is {:016x}", again.hash);
    }
    if report.violation.is_none() && report.hash == again.hash { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What some seeds came to.
#[derive(Default)]
struct Came {
    counts: Counts,
    lines: u64,
    twice: u64,
}

/// What ends a run.
enum Failed {
    Violation(Box<Report>),
    Differs { seed: u64, hashes: [u64; 2] },
}

impl Came {
    /// Runs one more.
    fn run(&mut self, seed: u64) -> Result<(), Failed> {
        let report = simulator::run(seed, None);
        if report.violation.is_some() {
            return Err(Failed::Violation(Box::new(report)));
        }
        if seed.is_multiple_of(TWICE) {
            self.twice += 1;
            let again = simulator::run(seed, None);
            if again.hash != report.hash {
                return Err(Failed::Differs { seed, hashes: [report.hash, again.hash] });
            }
        }
        self.counts.add(&report.counts);
        self.lines += report.lines;
        Ok(())
    }

    /// Runs seeds on every processor, each from its beginning to its end on one thread.
    fn run_all(&mut self, first: u64, seeds: u64) -> Result<(), Failed> {
        let (next, end) = (AtomicU64::new(first), first + seeds);
        let run = || {
            let mut came = Self::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return Ok(came);
                }
                // After the first that fails nobody begins another.
                came.run(seed).inspect_err(|_| next.store(end, Ordering::Relaxed))?;
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        let all: Vec<Result<Self, Failed>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        for came in all {
            let came = came?;
            self.counts.add(&came.counts);
            self.lines += came.lines;
            self.twice += came.twice;
        }
        Ok(())
    }
}

/// Runs as many seeds as are asked for.
fn many(options: &Options) -> ExitCode {
    let begun = tokio::time::Instant::now();
    let (mut more, most) = options.seeds.map_or((MANY, 2 * MANY), |seeds| (seeds, seeds));
    let (mut came, mut seeds) = (Came::default(), 0);
    let missing = loop {
        if let Err(failed) = came.run_all(options.first + seeds, more) {
            return failed.tell(options.first);
        }
        seeds += more;
        let missing = if seeds < MANY { Vec::new() } else { came.counts.missing() };
        if missing.is_empty() || seeds >= most {
            break missing;
        }
        println!("simulator: not in {seeds} seeds, so some more are run: {}", missing.join(", "));
        more = MANY / 10;
    };
    println!("{}", came.counts);
    println!(
        "simulator: {seeds} seeds from {} in {:.1} s: every invariant held; {} lines of trace; {} seeds repeated alike",
        options.first,
        begun.elapsed().as_secs_f64(),
        came.lines,
        came.twice,
    );
    if missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    failed(|| println!("simulator: these never came up: {}", missing.join(", ")))
}

impl Failed {
    /// Says what it is, and how to see it again.
    fn tell(&self, first: u64) -> ExitCode {
        failed(|| match self {
            Self::Violation(report) => violation(report, report.seed - first + 1),
            Self::Differs { seed, hashes: [first, second] } => {
                println!("simulator: seed {seed} does not repeat: {first:016x}, then {second:016x}");
            }
        })
    }
}

/// Tells of a failure between the lines by which the ordinary harness does.
fn failed(tell: impl FnOnce()) -> ExitCode {
    println!("failures:");
    tell();
    println!("test result: FAILED");
    ExitCode::FAILURE
}

fn violation(report: &Report, seeds: u64) {
    println!("seed {} fails with {} faults; shrinking", report.seed, report.faults.len());
    if let Some(violation) = &report.violation {
        println!("{violation}");
    }
    let small = simulator::shrink(report);
    let numbers: Vec<_> = small.faults.iter().map(|fault| fault.number.to_string()).collect();
    let numbers = if numbers.is_empty() { "none".into() } else { numbers.join(",") };
    println!("found after {seeds} seeds; replay it with");
    println!(
        "  cargo test -p raworc-core --features simulator --test simulator -- --seed {} --faults {numbers}",
        report.seed
    );
    println!("{small}");
}
