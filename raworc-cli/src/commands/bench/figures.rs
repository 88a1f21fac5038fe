//! Figures over rounds, their bounds, and whether these hold.

use std::time::Duration;

use serde::Serialize;

use crate::output::{Console, Ink, Table};

/// A floor that spreads over more than this between rounds voids what is compared with it.
const SPREAD_LIMIT: f64 = 2.0;

/// Times of operations, in order.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that this part of the operations took at most, in milliseconds.
    pub(super) fn ms(&self, part: f64) -> f64 {
        // The nearest rank: the last one stands for everything above it.
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1e3
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What must hold of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// At most so many times the floor, and so much more.
    AtMost { floors: f64, plus: f64 },
    /// At least so many times the floor.
    AtLeast { floors: f64 },
    /// At least so much.
    NotBelow(f64),
    /// At most so much.
    NotAbove(f64),
    /// Nothing: the figure explains others.
    None,
}

impl Bound {
    /// How much of what is allowed was used: up to 1 it holds.
    fn used(self, ours: f64, floor: f64) -> f64 {
        match self {
            Self::AtMost { floors, plus } => ours / (floors * floor + plus),
            Self::AtLeast { floors } => floors * floor / ours,
            Self::NotBelow(least) => least / ours,
            Self::NotAbove(most) => ours / most,
            Self::None => 0.0,
        }
    }

    const fn compares(self) -> bool {
        matches!(self, Self::AtMost { .. } | Self::AtLeast { .. })
    }

    fn text(self) -> String {
        match self {
            Self::AtMost { floors, plus } if plus > 0.0 => format!("<= {floors} floors + {plus}"),
            Self::AtMost { floors, .. } => format!("<= {floors} floors"),
            Self::AtLeast { floors } => format!(">= {floors} floors"),
            Self::NotBelow(least) => format!(">= {least}"),
            Self::NotAbove(most) => format!("<= {most}"),
            Self::None => String::new(),
        }
    }
}

/// What came of a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Held,
    Missed,
    /// The floor was not steady enough to compare with.
    Void,
    /// There is no bound.
    Shown,
}

/// A figure, once a round.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) ours: Vec<f64>,
    pub(super) floor: Vec<f64>,
    pub(super) bound: Bound,
    pub(super) verdict: Verdict,
}

impl Figure {
    /// One that is compared with the floor of each round.
    pub(super) fn beside(what: &'static str, unit: &'static str, rounds: &[(f64, f64)], bound: Bound) -> Self {
        let figure = Self::and(what, unit, rounds, bound);
        let voids = bound.compares() && spread(&figure.floor) > SPREAD_LIMIT;
        if voids { Self { verdict: Verdict::Void, ..figure } } else { figure }
    }

    /// One that is compared with another of ours, each round for itself: neither is steadier than the other.
    pub(super) fn and(what: &'static str, unit: &'static str, rounds: &[(f64, f64)], bound: Bound) -> Self {
        let (ours, floor) = rounds.iter().copied().unzip();
        Self { what, unit, ours, floor, bound, verdict: Verdict::Shown }.judged()
    }

    /// One that stands for itself.
    pub(super) fn alone(what: &'static str, unit: &'static str, ours: Vec<f64>, bound: Bound) -> Self {
        Self { what, unit, ours, floor: Vec::new(), bound, verdict: Verdict::Shown }.judged()
    }

    fn judged(mut self) -> Self {
        self.verdict = match self.bound {
            Bound::None => Verdict::Shown,
            _ if self.used() <= 1.0 => Verdict::Held,
            _ => Verdict::Missed,
        };
        self
    }

    /// The middle one of what was used of the bound in each round.
    fn used(&self) -> f64 {
        let floors = self.floor.iter().copied().chain(std::iter::repeat(0.0));
        let used: Vec<_> = self.ours.iter().zip(floors).map(|(ours, floor)| self.bound.used(*ours, floor)).collect();
        median(&used)
    }

    fn ratio(&self) -> String {
        if self.floor.is_empty() {
            return String::new();
        }
        let ratios: Vec<_> = self.ours.iter().zip(&self.floor).map(|(ours, floor)| ours / floor).collect();
        format!("{:.2}", median(&ratios))
    }
}

/// Whether none of them misses its bound. One that is void is none that missed.
///
/// # Errors
/// Names those that do.
pub(super) fn held(figures: &[Figure]) -> anyhow::Result<()> {
    let missed = figures.iter().filter(|figure| figure.verdict == Verdict::Missed);
    let missed: Vec<_> = missed.map(|figure| format!("{} ({})", figure.what, figure.bound.text())).collect();
    anyhow::ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    Ok(())
}

/// The middle one; the lower one of two.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// How many times the least one the greatest one is.
fn spread(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    most / least
}

fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The middle one of the rounds, and between which bounds the others lie.
fn over_rounds(values: &[f64]) -> String {
    let Some(first) = values.first() else { return String::new() };
    if values.len() == 1 {
        return number(*first);
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{} ({}-{})", number(median(values)), number(least), number(most))
}

/// The figures for people: the middle round, with the least and the greatest in brackets.
pub(super) fn table(console: &Console, figures: &[Figure]) -> String {
    let mut table = Table::new(["FIGURE", "UNIT", "OURS", "FLOOR", "RATIO", "BOUND", ""]);
    for figure in figures {
        let verdict = match figure.verdict {
            Verdict::Held => console.out.paint(Ink::Green, "held"),
            Verdict::Missed => console.out.paint(Ink::Red, "missed"),
            Verdict::Void => console.out.paint(Ink::Yellow, "void: the floor spreads"),
            Verdict::Shown => String::new(),
        };
        table.row([
            figure.what.into(),
            figure.unit.into(),
            over_rounds(&figure.ours),
            over_rounds(&figure.floor),
            figure.ratio(),
            figure.bound.text(),
            verdict,
        ]);
    }
    table.render(console)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(rounds: &[(f64, f64)]) -> Figure {
        Figure::beside("accept", "ms", rounds, Bound::AtMost { floors: 3.0, plus: 2.0 })
    }

    #[test]
    fn a_bound_holds_where_the_middle_round_is_within_it() {
        assert_eq!(figure(&[(4.0, 1.0), (5.0, 1.0), (90.0, 1.0)]).verdict, Verdict::Held);
        assert_eq!(figure(&[(4.0, 1.0), (5.1, 1.0), (90.0, 1.0)]).verdict, Verdict::Missed);
    }

    #[test]
    fn a_floor_that_spreads_over_more_than_twofold_voids_the_comparison() {
        assert_eq!(figure(&[(1.0, 1.0), (1.0, 2.0)]).verdict, Verdict::Held);
        assert_eq!(figure(&[(1.0, 1.0), (1.0, 2.1)]).verdict, Verdict::Void);
    }

    #[test]
    fn figures_of_ours_are_compared_however_far_they_spread() {
        let bound = Bound::AtMost { floors: 2.0, plus: 0.0 };
        let and = |rounds: &[(f64, f64)]| Figure::and("accept", "ms", rounds, bound).verdict;
        assert_eq!(and(&[(1.0, 1.0), (7.0, 4.0), (9.0, 3.0)]), Verdict::Held);
        assert_eq!(and(&[(1.0, 1.0), (9.0, 4.0), (9.0, 3.0)]), Verdict::Missed);
    }

    #[test]
    fn a_rate_is_held_from_its_bound_on() {
        let rate = |ours| Figure::alone("rate", "1/s", vec![ours], Bound::NotBelow(1000.0)).verdict;
        assert_eq!(rate(1000.0), Verdict::Held);
        assert_eq!(rate(999.0), Verdict::Missed);
        let beside = |ours| Figure::beside("rate", "1/s", &[(ours, 100.0)], Bound::AtLeast { floors: 0.5 }).verdict;
        assert_eq!(beside(50.0), Verdict::Held);
        assert_eq!(beside(49.0), Verdict::Missed);
    }

    #[test]
    fn what_missed_its_bound_is_named_and_what_is_void_or_shown_did_not() {
        let alone = |ours, bound| Figure::alone("memory", "MiB", vec![ours], bound);
        let void = figure(&[(90.0, 1.0), (90.0, 2.1)]);
        let good = [alone(40.0, Bound::NotAbove(40.0)), alone(1e9, Bound::None), void];
        held(&good).expect("none missed");
        let bad = [&good[..], &[alone(41.0, Bound::NotAbove(40.0))]].concat();
        assert_eq!(held(&bad).expect_err("missed").to_string(), "missed: memory (<= 40)");
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let times = Times::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.ms(0.5), times.ms(0.99), times.ms(1.0)), (50.0, 99.0, 100.0));
        assert_eq!(Times::new(vec![Duration::from_millis(7)]).ms(0.99), 7.0);
    }
}
