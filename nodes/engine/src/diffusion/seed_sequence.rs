//! numpy's `SeedSequence`, by which torchsde's Brownian tree gives every node a seed of its own.
//!
//! The algorithm is M. O'Neill's `seed_seq_fe` ("Developing a seed_seq Alternative", 2015) as described in numpy's documentation of
//! `numpy.random.SeedSequence`; checked against numpy 2.4 (`tests/golden/noise.py`).

/// Words of the pool: torchsde's `BrownianTree` asks for 24 (numpy's own default is 4).
const POOL: usize = 24;

/// The first `N` words of `SeedSequence(entropy, spawn_key=key, pool_size=24).generate_state(N)`.
pub(super) fn seed_words<const N: usize>(entropy: u64, key: &[u64]) -> [u32; N] {
    let mut input = words(entropy);
    if !key.is_empty() {
        // The key must not run into the entropy, so that (entropy, key) is told apart from a longer entropy.
        input.resize(POOL, 0);
        input.extend(key.iter().flat_map(|k| words(*k)));
    }
    let mut hash = Hash { state: 0x43b0_d7e5, multiplier: 0x931e_8875 };
    let mut pool = [0u32; POOL];
    for (i, place) in pool.iter_mut().enumerate() {
        *place = hash.mix_in(input.get(i).copied().unwrap_or(0));
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = merge(pool[to], hash.mix_in(pool[from]));
        }
    }
    for word in input.iter().skip(POOL) {
        for place in &mut pool {
            *place = merge(*place, hash.mix_in(*word));
        }
    }
    let mut hash = Hash { state: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
    std::array::from_fn(|i| hash.mix_in(pool[i % POOL]))
}

/// An integer as 32-bit words, the low one first; 0 is one word.
fn words(value: u64) -> Vec<u32> {
    let (low, high) = (value as u32, (value >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

/// A multiplicative hash whose constant changes with every word.
struct Hash {
    state: u32,
    multiplier: u32,
}

impl Hash {
    fn mix_in(&mut self, word: u32) -> u32 {
        let word = word ^ self.state;
        self.state = self.state.wrapping_mul(self.multiplier);
        fold(word.wrapping_mul(self.state))
    }
}

fn merge(a: u32, b: u32) -> u32 {
    fold(a.wrapping_mul(0xca01_f9dd).wrapping_sub(b.wrapping_mul(0x4973_f715)))
}

fn fold(word: u32) -> u32 {
    word ^ (word >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_numpys() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/golden/noise.json")).unwrap();
        let numbers = |v: &serde_json::Value| -> Vec<u64> {
            v.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
        };
        for row in golden["seed_sequence"].as_array().unwrap() {
            let got: [u32; 4] = seed_words(row["entropy"].as_u64().unwrap(), &numbers(&row["key"]));
            assert_eq!(got.map(u64::from).to_vec(), numbers(&row["words"]), "{row}");
        }
    }
}
