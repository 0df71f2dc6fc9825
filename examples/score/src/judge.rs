//! The attribute judge: a small network that reads silhouette, colours, texture, drawing style and background from a picture.
//!
//! Its layers stand in `judge.json` beside its weights; `examples/models/train_creatures/judge.py` trains it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{D, Device, Tensor};
use serde::Deserialize;

/// What can go wrong here is a damaged file in the repository; the text says which.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Deserialize)]
struct Description {
    layers: Vec<Layer>,
    heads: Vec<Head>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Layer {
    AvgPool { kernel: usize },
    Conv2d { weight: String, bias: String, padding: usize, stride: usize },
    Relu,
    Flatten,
    Linear { weight: String, bias: String },
}

#[derive(Deserialize)]
struct Head {
    name: String,
    weight: String,
    bias: String,
    classes: Vec<String>,
}

/// The judge.
pub(crate) struct Judge {
    description: Description,
    weights: HashMap<String, Tensor>,
}

impl Judge {
    /// Read `judge.json` and `judge.safetensors` from `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let description = serde_json::from_str(&fs::read_to_string(folder.join("judge.json"))?)?;
        let weights = candle_core::safetensors::load(folder.join("judge.safetensors"), &Device::Cpu)?;
        let weights = weights
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.to_dtype(candle_core::DType::F32)?)))
            .collect::<Result<_>>()?;
        Ok(Self { description, weights })
    }

    /// What the judge sees in each of `pictures [B, 3, 96, 96]` in −1..1: attribute → class.
    pub(crate) fn look(&self, pictures: &Tensor) -> Result<Vec<HashMap<String, String>>> {
        let mut x = pictures.clone();
        for layer in &self.description.layers {
            x = match layer {
                Layer::AvgPool { kernel } => x.avg_pool2d(*kernel)?,
                Layer::Conv2d { weight, bias, padding, stride } => {
                    let bias = self.weight(bias)?;
                    x.conv2d(self.weight(weight)?, *padding, *stride, 1, 1)?
                        .broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?)?
                }
                Layer::Relu => x.relu()?,
                Layer::Flatten => x.flatten_from(1)?,
                Layer::Linear { weight, bias } => self.linear(&x, weight, bias)?,
            };
        }
        let mut seen = vec![HashMap::new(); pictures.dim(0)?];
        for head in &self.description.heads {
            let best: Vec<u32> = self.linear(&x, &head.weight, &head.bias)?.argmax(D::Minus1)?.to_vec1()?;
            for (seen, class) in seen.iter_mut().zip(best) {
                seen.insert(head.name.clone(), head.classes[class as usize].clone());
            }
        }
        Ok(seen)
    }

    fn linear(&self, x: &Tensor, weight: &str, bias: &str) -> Result<Tensor> {
        Ok(x.matmul(&self.weight(weight)?.t()?)?.broadcast_add(self.weight(bias)?)?)
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        self.weights.get(name).ok_or_else(|| format!("judge.safetensors has no tensor {name}").into())
    }
}
