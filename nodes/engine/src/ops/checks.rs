//! Every operation against finite differences and against its composed twin, on every device that there is.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::Result;

/// The CPU, and the first GPU where the feature `cuda` is built in and there is one.
fn devices() -> Vec<Device> {
    let gpu = if cfg!(feature = "cuda") { Device::new_cuda(0).ok() } else { None };
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

/// Seeded numbers, about normal, from a small generator: enough for checks.
fn noise(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * 1.7).collect();
    Tensor::from_vec(values, shape, device).unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_dtype(DType::F64).unwrap() * b.to_dtype(DType::F64).unwrap())
        .unwrap()
        .sum_all()
        .unwrap()
        .to_scalar::<f64>()
        .unwrap()
}

fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let difference = (a - b).unwrap();
    let error = (dot(&difference, &difference) / dot(b, b).max(1e-30)).sqrt();
    assert!(error < tolerance, "{what}: relative difference {error:.2e}");
}

/// The gradient of ⟨f(x), g⟩ along a random direction, by the tape and by central differences. The tolerance allows for f32.
fn check(name: &str, x: &Tensor, f: impl Fn(&Tape, &Traced) -> Result<Traced>) {
    let tape = Tape::default();
    let leaf = tape.leaf(x.clone());
    let y = f(&tape, &leaf).unwrap();
    let g = noise(x.device(), y.dims(), 77);
    let gradient = tape.backward(&y, g.clone(), &leaf).unwrap();
    assert_eq!(gradient.dims(), x.dims(), "{name}");
    let value = |x: &Tensor| dot(f(&Tape::default(), &x.clone().into()).unwrap().value(), &g);
    for seed in 0..3 {
        let direction = noise(x.device(), x.dims(), 1000 + seed);
        let h = 2e-3;
        let step = |sign: f64| (x + (&direction * (sign * h)).unwrap()).unwrap();
        let wanted = (value(&step(1.0)) - value(&step(-1.0))) / (2.0 * h);
        let found = dot(&gradient, &direction);
        let size = (dot(&gradient, &gradient) * dot(&direction, &direction)).sqrt();
        assert!(
            (wanted - found).abs() < 2e-3 * size.max(1e-3),
            "{name}: differences {wanted}, tape {found}, size {size}"
        );
    }
}

fn conv(d: &Device, o: usize, c: usize, k: usize, stride: usize, padding: usize) -> Conv2d {
    Conv2d { weight: noise(d, &[o, c, k, k], 5), bias: Some(noise(d, &[o], 6)), stride, padding }
}

#[test]
fn linear_gradient() {
    for d in &devices() {
        for shape in [vec![3, 5], vec![2, 7, 5]] {
            let layer = Linear { weight: noise(d, &[4, 5], 1), bias: Some(noise(d, &[4], 2)) };
            check("linear", &noise(d, &shape, 3), |tape, x| layer.forward(tape, x));
        }
    }
}

#[test]
fn convolutions_agree_with_candle_and_differences() {
    for d in &devices() {
        for (k, stride, padding) in [(3, 1, 1), (1, 1, 0), (3, 2, 1), (3, 2, 0)] {
            for (h, w) in [(8, 8), (7, 8), (9, 5)] {
                let layer = conv(d, 6, 4, k, stride, padding);
                let x = noise(d, &[2, 4, h, w], 9);
                let wanted = x.conv2d(&layer.weight, padding, stride, 1, 1).unwrap();
                let wanted = wanted
                    .broadcast_add(&layer.bias.as_ref().unwrap().reshape((1, 6, 1, 1)).unwrap())
                    .unwrap();
                let y = layer.forward(&Tape::default(), &x.clone().into()).unwrap();
                let what = format!("conv {k} {stride} {padding} on {h}×{w}");
                assert_close(y.value(), &wanted, 1e-5, &what);
                check(&what, &x, |tape, x| layer.forward(tape, x));
            }
        }
    }
}

#[test]
fn convolutions_in_many_tiles_agree_with_candle() {
    for d in &devices() {
        let layer = conv(d, 8, 96, 3, 1, 1);
        let x = noise(d, &[1, 96, 40, 40], 4);
        let wanted = x.conv2d(&layer.weight, 1, 1, 1, 1).unwrap();
        let wanted =
            wanted.broadcast_add(&layer.bias.as_ref().unwrap().reshape((1, 8, 1, 1)).unwrap()).unwrap();
        assert_close(
            layer.forward(&Tape::default(), &x.clone().into()).unwrap().value(),
            &wanted,
            1e-5,
            "tiles",
        );
        let tape = Tape::default();
        let leaf = tape.leaf(x);
        let y = layer.forward(&tape, &leaf).unwrap();
        let g = noise(d, y.dims(), 8);
        let wanted = g.conv_transpose2d(&layer.weight, 1, 0, 1, 1).unwrap();
        assert_close(&tape.backward(&y, g, &leaf).unwrap(), &wanted, 1e-5, "gradient in tiles");
    }
}

#[test]
fn group_norm_gradient() {
    for d in &devices() {
        let norm = GroupNorm { weight: noise(d, &[6], 1), bias: noise(d, &[6], 2), num_groups: 3, eps: 1e-5 };
        let x = noise(d, &[2, 6, 5, 3], 3);
        for silu in [false, true] {
            let run = |tape: &Tape, x: &Traced| {
                if silu { norm.forward_silu(tape, x) } else { norm.forward(tape, x) }
            };
            check("group norm", &x, run);
            let tape = Tape::default();
            let leaf = tape.leaf(x.clone());
            let y = run(&tape, &leaf).unwrap();
            let g = noise(d, y.dims(), 4);
            let (value, gradient) = norm.composed(&x, &g, silu).unwrap();
            assert_close(y.value(), &value, 1e-5, "group norm");
            assert_close(&tape.backward(&y, g, &leaf).unwrap(), &gradient, 1e-5, "group norm gradient");
        }
    }
}

#[test]
fn layer_norm_gradient() {
    for d in &devices() {
        let norm = LayerNorm { weight: noise(d, &[37], 1), bias: noise(d, &[37], 2), eps: 1e-5 };
        let x = noise(d, &[2, 3, 37], 3);
        check("layer norm", &x, |tape, x| norm.forward(tape, x));
        let tape = Tape::default();
        let leaf = tape.leaf(x.clone());
        let y = norm.forward(&tape, &leaf).unwrap();
        let g = noise(d, y.dims(), 4);
        let (value, gradient) = norm.composed(&x, &g).unwrap();
        assert_close(y.value(), &value, 1e-5, "layer norm");
        assert_close(&tape.backward(&y, g, &leaf).unwrap(), &gradient, 1e-5, "layer norm gradient");
    }
}

#[test]
fn attention_gradients() {
    for d in &devices() {
        for (queries, keys, mask) in [(5, 7, Mask::None), (150, 20, Mask::None), (9, 9, Mask::Causal)] {
            let (q, k, v) =
                (noise(d, &[2, queries, 8], 1), noise(d, &[2, keys, 8], 2), noise(d, &[2, keys, 8], 3));
            let constant = |t: &Tensor| Traced::constant(t.clone());
            check("attention, queries", &q, |tape, q| {
                attention(tape, q, &constant(&k), &constant(&v), 2, mask)
            });
            check("attention, keys", &k, |tape, k| attention(tape, &constant(&q), k, &constant(&v), 2, mask));
            check("attention, values", &v, |tape, v| {
                attention(tape, &constant(&q), &constant(&k), v, 2, mask)
            });
            let y =
                attention(&Tape::default(), &constant(&q), &constant(&k), &constant(&v), 2, mask).unwrap();
            let g = noise(d, y.dims(), 4);
            let (value, gradients) = attention::composed([&q, &k, &v], &g, 2, mask).unwrap();
            assert_close(y.value(), &value, 1e-5, "attention");
            let tape = Tape::default();
            let leaf = tape.leaf(k.clone());
            let y = attention(&tape, &constant(&q), &leaf, &constant(&v), 2, mask).unwrap();
            let found = tape.backward(&y, g, &leaf).unwrap();
            assert_close(&found, gradients[1].as_ref().unwrap(), 1e-5, "attention, keys");
        }
    }
}

#[test]
fn activation_gradients() {
    for d in &devices() {
        let x = noise(d, &[3, 40], 3);
        for f in [Activation::Silu, Activation::QuickGelu, Activation::Gelu] {
            check("activation", &x, |tape, x| activation(tape, x, f));
        }
        let y = activation(&Tape::default(), &x.clone().into(), Activation::Gelu).unwrap();
        assert_close(y.value(), &x.gelu_erf().unwrap(), 1e-6, "gelu");
        let y = activation(&Tape::default(), &x.clone().into(), Activation::Silu).unwrap();
        assert_close(y.value(), &x.silu().unwrap(), 1e-6, "silu");
        check("geglu", &x, geglu);
    }
}

#[test]
fn layouts_and_sums() {
    for d in &devices() {
        let x = noise(d, &[2, 3, 4, 6], 3);
        check("tokens", &x, to_tokens);
        check("there and back", &x, |tape, x| from_tokens(tape, &to_tokens(tape, x)?, 4, 6));
        for size in [(8, 12), (7, 12), (8, 11), (7, 11)] {
            check("upsample", &x, |tape, x| upsample_nearest_2x(tape, x, size));
            let y = upsample_nearest_2x(&Tape::default(), &x.clone().into(), size).unwrap();
            let wanted = x.upsample_nearest2d(8, 12).unwrap();
            let wanted = wanted.narrow(2, 0, size.0).unwrap().narrow(3, 0, size.1).unwrap();
            assert_close(y.value(), &wanted, 1e-7, "upsample");
        }
        assert!(upsample_nearest_2x(&Tape::default(), &x.clone().into(), (6, 12)).is_err());
        check("concat", &x, |tape, x| concat(tape, x, &x.clone(), 1));
        let down = |tape: &Tape, x: &Traced| transfer(tape, x, DType::F64, d);
        check("transfer", &x, |tape, x| transfer(tape, &down(tape, x)?, DType::F32, d));
        let v = noise(d, &[2, 3], 8);
        check("add per channel", &x, |tape, x| add_per_channel(tape, x, &v.clone().into()));
        check("per channel", &v, |tape, v| add_per_channel(tape, &x.clone().into(), v));
        let rows = noise(d, &[3, 7], 9);
        check("columns", &rows, |tape, x| columns(tape, x, 2, 4));
        check("two parts", &rows, |tape, x| {
            concat(tape, &columns(tape, x, 5, 2)?, &columns(tape, x, 0, 5)?, 1)
        });
        let texts = noise(d, &[2, 4, 3], 10);
        check("pick tokens", &texts, |tape, x| pick_tokens(tape, x, &[3, 1]));
        let picked = pick_tokens(&Tape::default(), &texts.clone().into(), &[3, 1]).unwrap();
        let wanted =
            Tensor::stack(&[texts.get(0).unwrap().get(3).unwrap(), texts.get(1).unwrap().get(1).unwrap()], 0);
        assert_close(picked.value(), &wanted.unwrap(), 1e-7, "picked tokens");
    }
}

#[test]
fn spliced_rows_and_their_gradient() {
    for d in &devices() {
        let table = noise(d, &[4, 3], 1);
        let ids = [0, 5, 3, 4, 5, 1];
        check("splice", &noise(d, &[2, 3], 2), |tape, v| splice_rows(tape, &table, v, &ids, 2));
        let vectors = noise(d, &[2, 3], 2);
        let y = splice_rows(&Tape::default(), &table, &vectors.clone().into(), &ids, 2).unwrap();
        let rows: Vec<Vec<f32>> = y.value().reshape((6, 3)).unwrap().to_vec2().unwrap();
        assert_eq!(rows[1], vectors.get(1).unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(rows[2], table.get(3).unwrap().to_vec1::<f32>().unwrap());
        assert!(splice_rows(&Tape::default(), &table, &vectors.into(), &[6], 1).is_err());
    }
}

#[test]
fn half_precision_weights_on_the_cpu_are_widened() {
    let d = &Device::Cpu;
    let layer = Linear { weight: noise(d, &[4, 5], 1).to_dtype(DType::BF16).unwrap(), bias: None };
    let x = noise(d, &[2, 5], 2);
    let wanted = x.matmul(&layer.weight.to_dtype(DType::F32).unwrap().t().unwrap()).unwrap();
    assert_close(&layer.apply(&x).unwrap(), &wanted, 1e-6, "bf16 weight");
}
