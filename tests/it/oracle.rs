//! The engine against candle-transformers on the same weights: another implementation in the same language, forward only, since its layer
//! norms and softmaxes have no gradient. The text encoder is taken at the real size of Stable Diffusion 1.5, with seeded random weights.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, VarBuilder};
use candle_transformers::models::stable_diffusion::clip;
use vocable_engine::checkpoint::Weights;
use vocable_engine::models::{ClipTextConfig, ClipTextModel, HiddenLayer};
use vocable_engine::ops::Tape;

use crate::support::relative;

/// Numbers spread evenly over `centre ± spread`.
fn random(shape: &[usize], centre: f32, spread: f32, state: &mut u64) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            centre + spread * ((*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn text_encoder_of_real_size_equals_candle_transformers() {
    let (d, hidden, vocabulary) = (768, 3072, 49408);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut weights = HashMap::new();
    let mut put = |name: String, shape: &[usize], centre: f32, spread: f32| {
        weights.insert(format!("text_model.{name}"), random(shape, centre, spread, &mut state));
    };
    put("embeddings.token_embedding.weight".into(), &[vocabulary, d], 0.0, 0.03);
    put("embeddings.position_embedding.weight".into(), &[77, d], 0.0, 0.01);
    for i in 0..12 {
        for norm in ["layer_norm1", "layer_norm2"] {
            put(format!("encoder.layers.{i}.{norm}.weight"), &[d], 1.0, 0.3);
            put(format!("encoder.layers.{i}.{norm}.bias"), &[d], 0.0, 0.3);
        }
        for (layer, out, inner) in [
            ("self_attn.q_proj", d, d),
            ("self_attn.k_proj", d, d),
            ("self_attn.v_proj", d, d),
            ("self_attn.out_proj", d, d),
            ("mlp.fc1", hidden, d),
            ("mlp.fc2", d, hidden),
        ] {
            put(format!("encoder.layers.{i}.{layer}.weight"), &[out, inner], 0.0, 0.08);
            put(format!("encoder.layers.{i}.{layer}.bias"), &[out], 0.0, 0.1);
        }
    }
    put("final_layer_norm.weight".into(), &[d], 1.0, 0.3);
    put("final_layer_norm.bias".into(), &[d], 0.0, 0.3);

    let builder = VarBuilder::from_tensors(weights.clone(), DType::F32, &Device::Cpu);
    let theirs = clip::ClipTextTransformer::new(builder, &clip::Config::v1_5()).unwrap();
    let mut ids = vec![49406u32, 320, 1125, 539, 320, 2368, 49407];
    ids.resize(77, 49407);
    let wanted =
        theirs.forward(&Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap();

    let config = ClipTextConfig {
        vocab_size: vocabulary,
        hidden_size: d,
        intermediate_size: hidden,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        max_position_embeddings: 77,
        hidden_act: "quick_gelu".into(),
        layer_norm_eps: 1e-5,
        causal: true,
        attention_width: None,
        projection_dim: None,
    };
    let weights = Weights::held("random weights", weights, &Device::Cpu, DType::F32);
    let ours = ClipTextModel::new(&config, &weights).unwrap();
    let none = Tensor::zeros((0, d), DType::F32, &Device::Cpu).unwrap().into();
    let found = ours.forward(&Tape::default(), &ids, 1, &none, HiddenLayer::LAST, None).unwrap();
    let error = relative(found.hidden.value(), &wanted);
    assert!(error < 2e-5, "{error:.1e}");
}
