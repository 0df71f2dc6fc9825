//! The engine against candle-transformers on the same weights: another implementation in the same language, forward only, since its layer
//! norms and softmaxes have no gradient. (Its UNet norms attention in 32 groups whatever the configuration says, so it cannot read the
//! tiny one.)

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::stable_diffusion::vae;
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{PipelineFolder, Precision};

use crate::support::{Goldens, relative, tiny};

fn weights(part: &str) -> VarBuilder<'static> {
    let file = tiny().join(Path::new(part)).join("diffusion_pytorch_model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let tensors = tensors.into_iter().map(|(name, t)| (name, t.to_dtype(DType::F32).unwrap())).collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

#[test]
fn autoencoder_equals_candle_transformers() {
    let config = vae::AutoEncoderKLConfig {
        block_out_channels: vec![8, 8, 16, 16],
        layers_per_block: 1,
        latent_channels: 4,
        norm_num_groups: 4,
        use_quant_conv: true,
        use_post_quant_conv: true,
    };
    let theirs = vae::AutoEncoderKL::new(weights("vae"), 3, 3, config).unwrap();
    let latents: Tensor = Goldens::open("tiny.safetensors").get("vae.mean");
    let wanted = theirs.decode(&latents).unwrap();
    let cancel = CancelToken::new();
    let ours = PipelineFolder::open(&tiny()).unwrap().vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
    let error = relative(&ours.decode(&latents, &cancel).unwrap(), &wanted);
    assert!(error < 2e-5, "{error:.1e}");
}
