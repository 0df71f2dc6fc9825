//! Elementary functions written so that the compiler can use vector instructions, and the run-time choice of those.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Run `body` compiled for the best vector instructions that this processor has.
#[inline(always)]
pub(super) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// eˣ to about one unit in the last place; inputs are clamped to where the result is a normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5·2²³ rounds to an integer, whose bits then stand at the low end of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, so that r is exact (Cephes, expf).
    let r = (x - n * (355.0 / 512.0)) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let power = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_add(127) << 23;
    y * f32::from_bits(power as u32)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function, by the rational approximation that Eigen uses for f32 (`generic_fast_erf_float`): 4 units in the last place.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-3.9, 3.9);
    let x2 = x * x;
    let p = -2.726_142_3e-10;
    let p = p * x2 + 2.770_681_4e-8;
    let p = p * x2 - 2.101_024e-6;
    let p = p * x2 - 5.692_506_4e-5;
    let p = p * x2 - 7.349_906e-4;
    let p = p * x2 - 2.954_6e-3;
    let p = p * x2 - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * x2 - 2.133_740_6e-4;
    let q = q * x2 - 1.682_827e-3;
    let q = q * x2 - 7.373_329e-3;
    let q = q * x2 - 1.426_473_9e-2;
    x * p / q
}

/// The standard normal distribution function Φ.
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// The standard normal density φ.
#[inline(always)]
pub(super) fn normal_pdf(x: f32) -> f32 {
    0.398_942_3 * exp(-0.5 * x * x)
}

/// Σ f(i) over a row, in sixteen partial sums: fast, and the same order on every machine.
#[inline(always)]
pub(super) fn sum_by(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let whole = n / 16 * 16;
    for i in (0..whole).step_by(16) {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + j);
        }
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let wanted = f64::from(x).exp();
            assert!((f64::from(exp(x)) / wanted - 1.0).abs() < 2e-7, "exp({x})");
        }
    }

    #[test]
    fn erf_has_known_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, wanted) in
            [(0.0, 0.0), (0.1, 0.112_462_92), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)]
        {
            assert!((erf(x) - wanted).abs() < 3e-7, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erf(9.0) - 1.0).abs() < 2e-7);
    }

    #[test]
    fn a_sum_visits_every_place_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            assert_eq!(sum_by(n, |i| i as f32), (0..n).sum::<usize>() as f32);
        }
    }
}
