//! A Brownian path that a seed decides: torchsde's `BrownianTree`, bit for bit, which k-diffusion's SDE samplers take their noise from.
//!
//! The path runs over an interval that is halved again and again (a Brownian bridge, Lévy's construction). A node at depth `d` and place
//! `k` seeds torch's generator with the first word of numpy's `SeedSequence(seed, spawn_key=(k, d))`; that noise decides how its
//! increment is shared between its halves. Times are rounded to 1e-6, where the halving ends. So an increment does not depend on what was
//! asked before, and nothing has to be remembered: an increment is found by walking down from the root.
//!
//! What torchsde does was read in version 0.2.6 (`_brownian/brownian_interval.py`, Apache-2.0) and checked against it
//! (`tests/golden/noise.py`).

use super::TorchRng;
use super::seed_sequence::seed_words;

/// A standard Brownian motion `W(t)` in n dimensions for `low <= t <= high`.
#[derive(Debug, Clone)]
pub struct BrownianTree {
    seed: u64,
    root: Node,
}

/// A stretch of the path.
#[derive(Debug, Clone)]
struct Node {
    start: f64,
    end: f64,
    /// How many nodes of this depth lie to the left.
    place: u64,
    depth: u64,
    /// `W(end) - W(start)`.
    w: Vec<f32>,
}

impl BrownianTree {
    /// The path of that seed with `n` components over `[low, high]`, which are rounded to 1e-6 (σ of a latent, about 0.03 to 4519). Ends that
    /// make no interval give increments of 0.
    pub fn new(seed: u64, n: usize, low: f64, high: f64) -> Self {
        let [word] = seed_words(seed, &[]);
        let deviation = (high - low).max(0.0).sqrt() as f32;
        let w = TorchRng::new(word.into()).randn(n).into_iter().map(|v| v * deviation).collect();
        Self { seed, root: Node { start: micro(low), end: micro(high), place: 0, depth: 0, w } }
    }

    /// `W(to) - W(from)` for `from <= to`, each rounded to 1e-6 and clamped to the interval. Costs about 50 draws of `n` numbers.
    pub fn increment(&self, from: f64, to: f64) -> Vec<f32> {
        let Node { start, end, ref w, .. } = self.root;
        let mut sum = vec![0.0; w.len()];
        let inside = |t: f64| micro(t).max(start).min(end);
        self.root.add(self.seed, inside(from), inside(to), &mut sum);
        sum
    }
}

impl Node {
    /// Adds `W(to) - W(from)` to `sum`, the left parts first as torchsde does.
    fn add(&self, seed: u64, from: f64, to: f64, sum: &mut [f32]) {
        if from == self.start && to == self.end {
            sum.iter_mut().zip(&self.w).for_each(|(s, w)| *s += w);
            return;
        }
        let midway = micro(0.5 * (self.end + self.start));
        // Written so that what is not a number ends it too.
        let splits = self.start < midway && midway < self.end && from < to;
        if !splits {
            return;
        }
        let (left, right) = self.halves(seed, midway);
        if from < midway {
            left.add(seed, from, to.min(midway), sum);
        }
        if to > midway {
            right.add(seed, from.max(midway), to, sum);
        }
    }

    /// The Brownian bridge at `midway`: given the whole increment, the left one has mean `w·a/(a+b)` and variance `a·b/(a+b)`.
    fn halves(&self, seed: u64, midway: f64) -> (Self, Self) {
        let [word] = seed_words(seed, &[self.place, self.depth]);
        let noise = TorchRng::new(word.into()).randn(self.w.len());
        let (a, b) = (midway - self.start, self.end - midway);
        let share = 1.0 / (self.end - self.start);
        // torch multiplies a tensor of f32 by numbers rounded to f32, one after the other.
        let (a32, share32, deviation) = (a as f32, share as f32, (a * b * share).sqrt() as f32);
        let left: Vec<f32> =
            self.w.iter().zip(&noise).map(|(w, z)| a32 * w * share32 + deviation * z).collect();
        let right = self.w.iter().zip(&left).map(|(w, l)| w - l).collect();
        let (place, depth) = (self.place << 1, self.depth + 1);
        (
            Self { start: self.start, end: midway, place, depth, w: left },
            Self { start: midway, end: self.end, place: place | 1, depth, w: right },
        )
    }
}

/// `t` rounded to 1e-6 as Python's `round` does: in decimal, from the exact value. (`t·10⁶` rounded would err at ties.)
fn micro(t: f64) -> f64 {
    format!("{t:.6}").parse().unwrap_or(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_are_torchsdes_bit_for_bit() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/golden/noise.json")).unwrap();
        let rows = golden["brownian"].as_array().unwrap();
        assert!(rows.len() >= 4);
        for row in rows {
            let number = |v: &serde_json::Value| v.as_f64().unwrap();
            let n = row["n"].as_u64().unwrap() as usize;
            let tree = BrownianTree::new(
                row["seed"].as_u64().unwrap(),
                n,
                number(&row["low"]),
                number(&row["high"]),
            );
            for query in row["queries"].as_array().unwrap() {
                let got = tree.increment(number(&query["from"]), number(&query["to"]));
                let want: Vec<u32> =
                    query["bits"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
                let got: Vec<u32> = got.iter().map(|v| v.to_bits()).collect();
                assert_eq!(got, want, "seed {} from {} to {}", row["seed"], query["from"], query["to"]);
            }
        }
    }

    #[test]
    fn parts_make_the_whole() {
        let tree = BrownianTree::new(5, 4, 0.03, 14.6);
        let (whole, left, right) =
            (tree.increment(1.0, 9.0), tree.increment(1.0, 3.3), tree.increment(3.3, 9.0));
        for ((w, l), r) in whole.iter().zip(left).zip(right) {
            assert!((w - l - r).abs() < 1e-5);
        }
        assert_eq!(tree.increment(2.0, 2.0), [0.0; 4]);
        assert_eq!(tree.increment(20.0, 30.0), [0.0; 4]);
    }

    #[test]
    fn rounding_is_pythons() {
        // Ties go to the even digit.
        for (t, want) in
            [(0.0078125, 0.007812), (0.0234375, 0.023438), (14.614642143249512, 14.614642), (0.0, 0.0)]
        {
            assert_eq!(micro(t), want);
        }
    }

    #[test]
    fn strange_ends_do_no_harm() {
        for (low, high) in
            [(0.0, 0.0), (5.0, 1.0), (0.0, f64::INFINITY), (f64::NAN, 1.0), (1e300, 1e301), (1.0, 1.000001)]
        {
            assert_eq!(BrownianTree::new(1, 2, low, high).increment(0.3, 0.4).len(), 2);
            assert_eq!(BrownianTree::new(1, 2, low, high).increment(1e300, f64::NAN).len(), 2);
        }
    }
}
