//! `raworc bench`, in a small way: what is measured, not how much.

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "bench/on_databases.rs"]
mod on_databases;

use serde_json::Value;

use crate::home::Home;

fn bench(home: &Home, args: &[&str]) -> Vec<Value> {
    let place = home.path().display().to_string();
    let out = home.run(&[&["bench", "--dir", &place, "-o", "json"], args].concat()).ok();
    serde_json::from_str(&out).expect("a list of figures")
}

fn numbers(figure: &Value, key: &str) -> Vec<f64> {
    figure[key].as_array().expect("a list").iter().map(|n| n.as_f64().expect("a number")).collect()
}

#[test]
fn a_bench_gives_each_figure_once_a_round_with_the_floor_of_that_round() {
    let home = Home::new();
    let figures = bench(&home, &["accept", "reply", "life", "--rounds", "2", "--seconds", "1", "--callers", "8"]);
    for (what, compared) in [
        ("accept, offered: p99", true),
        ("accept, offered: lag of the load, p99", false),
        ("accept, sustained: processor time", false),
        ("message to reply seen: p50", true),
        ("create to idle, own share: p99", true),
        ("sleep to stopped, own share: p99", true),
        ("wake to idle, own share: p99", true),
    ] {
        let figure = figures.iter().find(|figure| figure["what"] == what).unwrap_or_else(|| panic!("no {what}"));
        assert_eq!(numbers(figure, "ours").len(), 2, "{figure}");
        assert!(numbers(figure, "ours").iter().all(|ours| *ours >= 0.0), "{figure}");
        let floor = numbers(figure, "floor");
        assert_eq!(floor.len(), if compared { 2 } else { 0 }, "{figure}");
        assert!(floor.iter().all(|floor| *floor > 0.0), "{figure}");
        assert_eq!(figure["verdict"] == "shown", !compared, "{figure}");
    }
    assert_eq!(home.names(), Vec::<String>::new(), "something was left behind");
}

#[test]
fn a_bench_that_is_strict_ends_with_1_where_a_figure_misses_its_bound_and_prints_all_the_same() {
    let home = Home::new();
    let place = home.path().display().to_string();
    // One caller, who waits for each answer, does not come to the rate that many have to.
    let args = ["bench", "accept", "--rounds", "1", "--seconds", "1", "--callers", "1", "--dir", &place, "-o", "json"];
    let lax = home.run(&args);
    let strict = home.run(&[&args[..], &["--strict"]].concat());
    for ran in [&lax, &strict] {
        let figures: Vec<Value> = serde_json::from_str(&ran.out).expect("a list of figures");
        assert!(figures.iter().any(|figure| figure["verdict"] == "missed"), "{ran:#?}");
    }
    assert_eq!((lax.code, strict.code), (0, 1), "{strict:#?}");
    assert!(strict.err.contains("missed: ") && strict.err.contains("accept, sustained (>= 1000)"), "{strict:#?}");
    assert_eq!(home.names(), Vec::<String>::new(), "something was left behind");
}

#[test]
fn a_bench_of_a_fleet_looks_at_installations_as_people_start_them() {
    let home = Home::new();
    let figures = bench(&home, &["fleet", "--seconds", "1", "--agents", "50"]);
    let figure = |what: &str| {
        let figure = figures.iter().find(|figure| figure["what"] == what).unwrap_or_else(|| panic!("no {what}"));
        numbers(figure, "ours")[0]
    };
    assert!(figure("up, no agents: memory") > 1.0);
    assert!(figure("up, all agents asleep: memory") > 1.0);
    assert!(figure("raworc version: p50") > 0.0);
    assert_eq!(home.names(), Vec::<String>::new(), "something was left behind");
}
