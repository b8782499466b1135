//! Rounds of several contenders in turn, and what came of them: shared by all benches.

#![allow(dead_code, reason = "each bench uses a part")]

/// Runs each contender once a round, in turn; prints medians with spread and the ratio to the first.
pub fn compare(title: &str, unit: &str, rounds: usize, contenders: &mut [(&str, &mut dyn FnMut() -> f64)]) {
    let mut results = vec![Vec::new(); contenders.len()];
    for (_, run) in contenders.iter_mut() {
        run();
    }
    for _ in 0..rounds {
        for ((_, run), results) in contenders.iter_mut().zip(&mut results) {
            results.push(run());
        }
    }
    println!("\n{title} ({unit}, median of {rounds} interleaved rounds [min – max])");
    for ((name, _), own) in contenders.iter().zip(&results) {
        let ratios: Vec<f64> = own.iter().zip(&results[0]).map(|(a, b)| a / b).collect();
        let (median, min, max) = spread(own);
        println!("  {name:<34} {median:>10.2} [{min:.2} – {max:.2}]   {:.3} of the first", spread(&ratios).0);
    }
}

/// Median, smallest and largest.
pub fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    spread(values).0
}
