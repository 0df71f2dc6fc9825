//! Our samplers against reference loops over diffusers' UNet (`golden/sampling.py`), from the same sigmas and noise: latents of every step,
//! and the pictures.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use vocable_engine::checkpoint::{Checkpoint, Precision};
use vocable_engine::sampling::{Denoiser, Guidance, Sampling};
use vocable_engine::{CancelToken, ErrorKind};

use crate::support::{Goldens, relative, tiny};

fn denoiser() -> Denoiser {
    let folder = Checkpoint::open(&tiny()).unwrap();
    Denoiser {
        unet: folder.unet(&Device::Cpu, Precision::F32, &CancelToken::new()).unwrap(),
        schedule: Arc::new(folder.schedule().unwrap()),
        scaling_factor: 0.25,
    }
}

fn how(sampler: &str) -> Sampling {
    Sampling {
        seed: 43,
        steps: 8,
        cfg: 2.0,
        sampler: sampler.into(),
        scheduler: "normal".into(),
        denoise: 1.0,
    }
}

fn guidance(goldens: &Goldens) -> Guidance {
    Guidance { positive: vec![goldens.get("cond").into()], negative: vec![goldens.get("uncond").into()] }
}

fn blank() -> Tensor {
    Tensor::zeros((2, 4, 8, 8), DType::F32, &Device::Cpu).unwrap()
}

/// Mean and largest difference in units of 1/255.
fn difference(a: &Tensor, b: &Tensor) -> (f64, f64) {
    let d = ((a - b).unwrap().abs().unwrap() * 127.5).unwrap();
    let number = |t: Tensor| f64::from(t.to_scalar::<f32>().unwrap());
    (number(d.mean_all().unwrap()), number(d.flatten_all().unwrap().max(0).unwrap()))
}

#[test]
fn every_step_and_the_pictures_agree_with_diffusers() {
    let goldens = Goldens::open("sampling.safetensors");
    let (denoiser, cancel) = (denoiser(), CancelToken::new());
    let vae = Checkpoint::open(&tiny()).unwrap().vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
    let sigmas: Vec<f64> = goldens.get("sigmas").to_vec1().unwrap();
    let other = goldens.get("other.pixels");
    for (sampler, golden) in [
        ("euler", "euler"),
        ("ddim", "euler"),
        ("dpmpp_2m", "dpmpp_2m"),
        ("euler_ancestral", "euler_ancestral"),
    ] {
        let wanted = goldens.get(&format!("{golden}.steps"));
        let mut checked = 0;
        let noise = goldens.get("noise");
        let guidance = guidance(&goldens);
        let latents = denoiser
            .sample_with(&how(sampler), &guidance, &blank(), &sigmas, &noise, &cancel, &mut |info| {
                if info.step > 0 {
                    let error = relative(info.x, &wanted.get(info.step - 1)?);
                    assert!(error < 1e-4, "{sampler}, step {}: {error:.1e}", info.step);
                    checked += 1;
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(checked, 7);
        let last = (wanted.get(7).unwrap() / 0.25).unwrap();
        assert!(relative(&latents, &last) < 1e-4, "{sampler}, last step");

        let pixels = vae.decode(&latents, &cancel).unwrap().clamp(-1f32, 1f32).unwrap();
        let wanted = goldens.get(&format!("{golden}.pixels"));
        let (mean, most) = difference(&pixels, &wanted);
        assert!(mean < 1.0 && most < 4.0, "{sampler}: mean {mean:.3}/255, at most {most:.3}/255");
        // The comparison means something: the pictures have contrast, and those of other noise are elsewhere.
        let spread =
            (wanted.flatten_all().unwrap().var(0).unwrap().to_scalar::<f32>().unwrap().sqrt()) * 127.5;
        assert!(spread > 20.0, "{sampler}: standard deviation {spread}/255");
        assert!(difference(&other, &wanted).0 > 10.0 * mean.max(0.1), "{sampler}");
    }
}

#[test]
fn sampling_stops_when_cancelled() {
    let goldens = Goldens::open("sampling.safetensors");
    let cancel = CancelToken::new();
    let stop = cancel.clone();
    let mut steps = 0;
    let result = denoiser().sample(&how("euler"), &guidance(&goldens), &blank(), &cancel, &mut |_| {
        steps += 1;
        stop.cancel();
        Ok(())
    });
    assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled);
    assert_eq!(steps, 1);
}
