//! Fewer faults for the same failure.

use super::{Report, run};

/// Runs that shrinking may take.
const RUNS: usize = 150;

/// The shortest list of faults that was found with which the same invariant does not hold, and the run with them.
#[must_use]
pub fn shrink(failed: &Report) -> Report {
    let mut best = failed.clone();
    let Some(violation) = &failed.violation else { return best };
    let mut runs = 0;
    let mut chunk = best.faults.len().div_ceil(2);
    while chunk > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < best.faults.len() && runs < RUNS {
            let numbers = best.faults.iter().enumerate().filter(|(place, _)| !(from..from + chunk).contains(place));
            let numbers: Vec<_> = numbers.map(|(_, planned)| planned.number).collect();
            runs += 1;
            let report = run(failed.seed, Some(&numbers));
            if report.violation.as_ref().is_some_and(|found| found.invariant == violation.invariant) {
                best = report;
                shorter = true;
            } else {
                from += chunk;
            }
        }
        if chunk == 1 && !shorter || runs == RUNS {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    best
}
