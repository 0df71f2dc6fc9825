//! Which rectangle of a picture becomes which size.

use sha2::{Digest, Sha256};

use super::{ConceptOptions, Crop};
use crate::diffusion::TorchRng;

/// A rectangle of the source that is resized to `out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Width and height.
    pub(super) out: (u32, u32),
}

impl Cut {
    /// Top and left in pixels of the whole picture, resized as the cut is.
    pub(super) fn place(&self) -> (u32, u32) {
        let scaled = |at: u32, size: u32, out: u32| {
            (f64::from(at) * f64::from(out) / f64::from(size.max(1))).round() as u32
        };
        (scaled(self.y, self.height, self.out.1), scaled(self.x, self.width, self.out.0))
    }
}

/// The cuts of a picture of `width × height`; `name` makes each picture's random crops its own.
pub(super) fn cuts(options: &ConceptOptions, name: &str, width: u32, height: u32) -> Vec<Cut> {
    let side = options.resolution as u32;
    match options.crop {
        Crop::Centre => vec![centre(width, height, (side, side))],
        Crop::None => vec![centre(width, height, own_size(width, height, side, options.multiple as u32))],
        Crop::Random { count, seed } => {
            let mut rng = TorchRng::new(picture_seed(seed, name));
            let shorter = width.min(height);
            (0..count)
                .map(|_| {
                    let draws = rng.uniform(3);
                    let part = |free: u32, u: f32| (((free + 1) as f32 * u) as u32).min(free);
                    let square = (shorter - part(shorter / 4, draws[0])).max(1);
                    Cut {
                        x: part(width - square, draws[1]),
                        y: part(height - square, draws[2]),
                        width: square,
                        height: square,
                        out: (side, side),
                    }
                })
                .collect()
        }
    }
}

fn picture_seed(seed: u64, name: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    hash.finalize().first_chunk().map_or(seed, |bytes| u64::from_le_bytes(*bytes))
}

/// The largest rectangle in the middle with the shape of `out`: what "resize to cover, then crop" keeps, without resizing what is thrown away.
fn centre(width: u32, height: u32, out: (u32, u32)) -> Cut {
    let shape = f64::from(out.0) / f64::from(out.1);
    let w = ((f64::from(height) * shape).round() as u32).clamp(1, width);
    let h = ((f64::from(width) / shape).round() as u32).clamp(1, height);
    Cut { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h, out }
}

/// The size nearest to the picture's aspect ratio with sides in multiples and at most `side²` pixels; of equally near ones the largest.
fn own_size(width: u32, height: u32, side: u32, multiple: u32) -> (u32, u32) {
    let aspect = (f64::from(width) / f64::from(height)).ln();
    let budget = u64::from(side) * u64::from(side);
    let ideal = |ratio: f64| f64::from(side) * (ratio / 2.0).exp() / f64::from(multiple);
    let around = |x: f64| [x.floor(), x.ceil()].map(|n| (n.max(1.0) as u32) * multiple);
    let mut best = (multiple, multiple);
    let mut best_key = (f64::INFINITY, 0);
    for w in around(ideal(aspect)) {
        for h in around(ideal(-aspect)) {
            let area = u64::from(w) * u64::from(h);
            let off = ((f64::from(w) / f64::from(h)).ln() - aspect).abs();
            let better = off < best_key.0 - 1e-9 || (off < best_key.0 + 1e-9 && area > best_key.1);
            if area <= budget && better {
                best = (w, h);
                best_key = (off, area);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centre_squares() {
        let cut = |w, h| centre(w, h, (64, 64));
        assert_eq!(cut(64, 64), Cut { x: 0, y: 0, width: 64, height: 64, out: (64, 64) });
        assert_eq!(cut(100, 50), Cut { x: 25, y: 0, width: 50, height: 50, out: (64, 64) });
        assert_eq!(cut(50, 101), Cut { x: 0, y: 25, width: 50, height: 50, out: (64, 64) });
        assert_eq!(
            (cut(100, 50).place(), cut(50, 101).place()),
            ((0, 32), (32, 0)),
            "in pixels of the result"
        );
    }

    #[test]
    fn own_sizes() {
        let rows = [
            ((512, 512), 512, 64, (512, 512)),
            ((4000, 3000), 512, 64, (576, 448)),
            ((3000, 4000), 512, 64, (448, 576)),
            ((1920, 1080), 512, 64, (640, 384)),
            ((1000, 100), 512, 64, (1600, 128)),
            ((33, 32), 64, 8, (64, 64)),
            ((40, 30), 64, 16, (64, 48)),
        ];
        for ((w, h), side, multiple, want) in rows {
            let got = own_size(w, h, side, multiple);
            assert_eq!(got, want, "{w}x{h}");
            assert!(
                got.0 * got.1 <= side * side
                    && got.0.is_multiple_of(multiple)
                    && got.1.is_multiple_of(multiple)
            );
        }
    }

    #[test]
    fn random_squares_stay_inside_and_repeat() {
        let options = ConceptOptions { crop: Crop::Random { count: 50, seed: 7 }, ..Default::default() };
        let got = cuts(&options, "a.png", 300, 200);
        assert_eq!(got.len(), 50);
        for c in &got {
            assert!(
                c.width == c.height
                    && (150..=200).contains(&c.width)
                    && c.x + c.width <= 300
                    && c.y + c.height <= 200
            );
        }
        assert!(got.iter().any(|c| c.x != got[0].x) && got.iter().any(|c| c.width != got[0].width));
        assert_eq!(got, cuts(&options, "a.png", 300, 200));
        assert_ne!(got, cuts(&options, "b.png", 300, 200));
    }
}
