//! PyTorch's CPU random numbers, bit for bit: the same seed gives the same noise as `torch.manual_seed` gives.
//!
//! What torch does was read in its own documentation and headers (`aten/src/ATen/native/cpu/DistributionTemplates.h`,
//! `core/DistributionsHelper.h`, `core/MT19937RNGEngine.h`) and checked against torch 2.15 (`tests/golden/noise.py`).

use rand_mt::Mt;

use super::normal;
use crate::{Error, Result};

/// Words in one block of the Mersenne Twister.
const BLOCK: usize = 624;
/// `b"VTR1"`, block, position, flag and value of the spare normal.
const STATE_BYTES: usize = 4 + 4 * BLOCK + 4 + 1 + 8;

/// torch's default CPU generator: MT19937, with torch's ways of drawing from it.
///
/// ```
/// let mut rng = vocable_engine::diffusion::TorchRng::new(0);
/// assert_eq!(rng.randn(3), [1.5409961, -0.2934289, -2.1787894]); // torch.manual_seed(0); torch.randn(3)
/// ```
#[derive(Clone)]
pub struct TorchRng {
    /// Always drawn in whole blocks, because a block of outputs is all that is needed to rebuild the generator behind it.
    mt: Mt,
    block: Box<[u32; BLOCK]>,
    position: usize,
    /// Box-Muller makes two numbers; the second one of the double path waits here for the next call, as in torch.
    spare: Option<f64>,
}

impl std::fmt::Debug for TorchRng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TorchRng").field("position", &self.position).finish_non_exhaustive()
    }
}

impl TorchRng {
    /// The generator after `torch.manual_seed(seed)`. Seeds that are equal modulo 2³² are the same seed.
    pub fn new(seed: u64) -> Self {
        // Truncation is torch's: mt19937 takes 32 bits.
        let mut rng =
            Self { mt: Mt::new(seed as u32), block: Box::new([0; BLOCK]), position: BLOCK, spare: None };
        rng.refill();
        rng
    }

    fn refill(&mut self) {
        for word in self.block.iter_mut() {
            *word = self.mt.next_u32();
        }
        self.position = 0;
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.position == BLOCK {
            self.refill();
        }
        let word = self.block[self.position];
        self.position += 1;
        word
    }

    /// The next 64 bits; the first draw is the high half.
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        (high << 32) | u64::from(self.next_u32())
    }

    /// `torch.rand(n)` in f32: `[0, 1)`, in steps of 2⁻²⁴.
    pub fn uniform(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform_one()).collect()
    }

    fn uniform_one(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    fn uniform_double(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// `torch.randn(n)` in f32: standard normal numbers.
    ///
    /// From 16 numbers on torch draws uniforms in blocks of 16 and transforms them in f32; a tail draws its 16 anew, over the last 16
    /// places. Below 16 it draws in f64, one pair at a time. So `randn(8)` twice is not `randn(16)`.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < 16 {
            return (0..n).map(|_| self.normal_double() as f32).collect();
        }
        let mut data = self.uniform(n);
        for block in data.chunks_exact_mut(16) {
            box_muller_16(block);
        }
        if !n.is_multiple_of(16) {
            let tail = &mut data[n - 16..];
            for value in tail.iter_mut() {
                *value = (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0);
            }
            box_muller_16(tail);
        }
        data
    }

    fn normal_double(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let u1 = self.uniform_double();
        let u2 = self.uniform_double();
        let r = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.spare = Some(r * theta.sin());
        r * theta.cos()
    }

    /// `torch.randint(low, high, (n,))`: integers in `[low, high)`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the range is empty.
    pub fn randint(&mut self, low: i64, high: i64, n: usize) -> Result<Vec<i64>> {
        if low >= high {
            return Err(Error::invalid(format!("random integers: the range {low}..{high} is empty")));
        }
        let range = high.wrapping_sub(low) as u64;
        // torch >= 2.7 takes 64 bits from 2^28 on, so that the modulo's bias stays small.
        let wide = range >= 1 << 28;
        let mut draw = || if wide { self.next_u64() } else { u64::from(self.next_u32()) };
        Ok((0..n).map(|_| low.wrapping_add((draw() % range) as i64)).collect())
    }

    /// `torch.randperm(n)`'s use in this engine: a uniformly random order of `0..n` (Fisher-Yates; not torch's own order).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = (self.next_u64() % (i as u64 + 1)) as usize;
            order.swap(i, j);
        }
        order
    }

    /// Everything that decides the numbers to come, as bytes for [`TorchRng::from_state`].
    pub fn state(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STATE_BYTES);
        bytes.extend_from_slice(b"VTR1");
        for word in self.block.iter() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.position as u32).to_le_bytes());
        bytes.push(u8::from(self.spare.is_some()));
        bytes.extend_from_slice(&self.spare.unwrap_or(0.0).to_le_bytes());
        bytes
    }

    /// The generator whose [`TorchRng::state`] this is.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the bytes are not such a state.
    pub fn from_state(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::incompatible(format!("random state: {what}"));
        if bytes.len() != STATE_BYTES || &bytes[..4] != b"VTR1" {
            return Err(wrong(&format!(
                "found {} bytes, wanted {STATE_BYTES} that begin with VTR1",
                bytes.len()
            )));
        }
        let mut block = Box::new([0u32; BLOCK]);
        for (word, four) in block.iter_mut().zip(bytes[4..].as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*four);
        }
        let rest = &bytes[4 + 4 * BLOCK..];
        let mut four = [0; 4];
        four.copy_from_slice(&rest[..4]);
        let position = u32::from_le_bytes(four) as usize;
        if position > BLOCK || rest[4] > 1 {
            return Err(wrong(&format!("position {position} or flag {} is out of range", rest[4])));
        }
        let mut eight = [0; 8];
        eight.copy_from_slice(&rest[5..13]);
        let spare = (rest[4] == 1).then(|| f64::from_le_bytes(eight));
        let mt = Mt::recover(block.iter().copied()).map_err(|e| wrong(&e.to_string()))?;
        Ok(Self { mt, block, position, spare })
    }
}

/// Eight radii from the first half of the uniforms, eight angles from the second.
fn box_muller_16(block: &mut [f32]) {
    for j in 0..8 {
        let r = (-2.0 * normal::ln(1.0 - block[j])).sqrt();
        let (sin, cos) = normal::sin_cos(std::f32::consts::TAU * block[j + 8]);
        block[j] = r * cos;
        block[j + 8] = r * sin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../../tests/golden/noise.json")).unwrap()
    }

    fn bits(value: &serde_json::Value) -> Vec<u32> {
        value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
    }

    #[test]
    fn randn_is_torchs_bit_for_bit() {
        let golden = golden();
        for row in golden["randn"].as_array().unwrap() {
            let mut rng = TorchRng::new(row["seed"].as_u64().unwrap());
            for call in row["calls"].as_array().unwrap() {
                let want = bits(&call["bits"]);
                let n = call["n"].as_u64().unwrap() as usize;
                let got: Vec<u32> = rng.randn(n).iter().map(|v| v.to_bits()).collect();
                // A big draw is stored as its first and last sixteen.
                if n == want.len() {
                    assert_eq!(got, want, "seed {} n {n}", row["seed"]);
                } else {
                    assert_eq!(got[..16], want[..16], "seed {} n {n}", row["seed"]);
                    assert_eq!(got[n - 16..], want[16..], "seed {} n {n}", row["seed"]);
                }
            }
        }
    }

    #[test]
    fn rand_and_randint_are_torchs() {
        let golden = golden();
        assert_eq!(
            TorchRng::new(11).uniform(20).iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            bits(&golden["rand"])
        );
        for row in golden["randint"].as_array().unwrap() {
            let (low, high) = (row["low"].as_i64().unwrap(), row["high"].as_i64().unwrap());
            let want: Vec<i64> =
                row["values"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
            assert_eq!(TorchRng::new(5).randint(low, high, want.len()).unwrap(), want, "{low}..{high}");
        }
        assert!(TorchRng::new(5).randint(3, 3, 1).is_err());
    }

    #[test]
    fn state_resumes_anywhere() {
        for before in [0, 3, 15, 600, 624, 1300, 5000] {
            let mut rng = TorchRng::new(99);
            let _ = rng.randn(before);
            let _ = rng.randn(3); // leaves a spare normal
            let mut resumed = TorchRng::from_state(&rng.state()).unwrap();
            assert_eq!(resumed.randn(5), rng.randn(5), "after {before}");
            assert_eq!(resumed.randn(2000), rng.randn(2000), "after {before}");
            assert_eq!(resumed.state(), rng.state());
        }
    }

    #[test]
    fn a_broken_state_is_refused() {
        let state = TorchRng::new(1).state();
        assert!(TorchRng::from_state(&state[1..]).is_err());
        let mut bad = state.clone();
        bad[4 + 4 * BLOCK] = 255;
        bad[5 + 4 * BLOCK] = 255;
        assert!(TorchRng::from_state(&bad).unwrap_err().message.contains("out of range"));
        bad[0] = b'X';
        assert!(TorchRng::from_state(&bad).is_err());
    }

    #[test]
    fn a_permutation_holds_everything_once() {
        let mut order = TorchRng::new(3).permutation(50);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
