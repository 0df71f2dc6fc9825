//! The only module that knows both sides: the host's values and errors, and the engine's tensors and errors.

mod weights;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use vocable_engine::ErrorKind as EngineKind;
use vocable_engine::concept::{Concept, ConceptItem};
use vocable_engine::embedding::Embedding;
use vocable_engine::models::TimeIds;
use vocable_engine::sampling::{Guidance, Prompt};
use vocable_host_sdk::abi::{ErrorKind, Inputs, NodeError, TensorBuf, Value};

pub(crate) use weights::HostTensors;

/// The engine's error as the host's: kind, message and help stay what they are.
pub(crate) fn node_error(error: vocable_engine::Error) -> NodeError {
    let kind = match error.kind {
        EngineKind::InvalidInput => ErrorKind::InvalidInput,
        EngineKind::NotFound => ErrorKind::NotFound,
        EngineKind::Incompatible => ErrorKind::Incompatible,
        EngineKind::OutOfMemory => ErrorKind::OutOfMemory,
        EngineKind::Cancelled => ErrorKind::Cancelled,
        EngineKind::Diverged => ErrorKind::Diverged,
        EngineKind::Internal => ErrorKind::Internal,
    };
    NodeError::new(kind, error.message).help(error.help)
}

/// A failure of candle as the host's error.
fn tensor_error(error: candle_core::Error) -> NodeError {
    node_error(error.into())
}

/// The host's tensor as f32 in ordinary memory.
pub(crate) fn tensor_from(buf: &TensorBuf) -> Result<Tensor, NodeError> {
    Tensor::from_vec(buf.to_vec_f32()?, buf.dims(), &Device::Cpu).map_err(tensor_error)
}

/// A tensor of any type and device as the host's, in f32 and ordinary memory.
pub(crate) fn tensor_into(tensor: &Tensor) -> Result<TensorBuf, NodeError> {
    let values = || tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    TensorBuf::from_vec_f32(tensor.dims(), values().map_err(tensor_error)?)
}

/// Height, width and channels of pictures, and how many there are: an IMAGE that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageShape {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl ImageShape {
    /// The shape of the IMAGE `name`; anything else is refused.
    pub(crate) fn of(name: &str, image: &TensorBuf) -> Result<Self, NodeError> {
        match image.dims().as_slice() {
            &[batch, height, width, channels @ (1 | 3 | 4)] if batch * height * width > 0 => {
                Ok(Self { batch, height, width, channels })
            }
            dims => Err(NodeError::invalid_input(format!(
                "input `{name}`: an IMAGE is [batch, height, width, channels] with 1, 3 or 4 channels, found {dims:?}"
            ))
            .help("Link the output of Load Image or VAE Decode.")),
        }
    }
}

/// Pictures as the autoencoder takes them: `[B, 3, H, W]` in −1..1, without alpha, cropped from the middle to multiples of `factor`.
pub(crate) fn pixels_from_image(name: &str, image: &TensorBuf, factor: usize) -> Result<Tensor, NodeError> {
    let shape = ImageShape::of(name, image)?;
    let (height, width) = (shape.height / factor * factor, shape.width / factor * factor);
    if height == 0 || width == 0 {
        return Err(NodeError::invalid_input(format!(
            "input `{name}`: pictures of {}x{} are too small, at least {factor}x{factor} pixels are needed",
            shape.width, shape.height
        )));
    }
    let convert = |image: Tensor| -> candle_core::Result<Tensor> {
        let image = image.narrow(1, (shape.height % factor) / 2, height)?;
        let image = image.narrow(2, (shape.width % factor) / 2, width)?;
        let image = match shape.channels {
            1 => image.broadcast_as((shape.batch, height, width, 3))?,
            _ => image.narrow(3, 0, 3)?,
        };
        (image.permute((0, 3, 1, 2))?.contiguous()? * 2.0)? - 1.0
    };
    convert(tensor_from(image)?).map_err(tensor_error)
}

/// Pictures `[B, 3, H, W]` in −1..1 as an IMAGE: `[B, H, W, 3]`, clamped to 0..1.
pub(crate) fn image_from_pixels(pixels: &Tensor) -> Result<TensorBuf, NodeError> {
    let convert = || ((pixels + 1.0)? / 2.0)?.clamp(0f32, 1f32)?.permute((0, 2, 3, 1))?.contiguous();
    tensor_into(&convert().map_err(tensor_error)?)
}

/// A LATENT: the samples, and what else is in the map.
pub(crate) struct Latent {
    pub(crate) samples: Tensor,
    rest: BTreeMap<String, Value>,
}

impl Latent {
    /// The LATENT `name`.
    pub(crate) fn from_input(inputs: &Inputs, name: &str) -> Result<Self, NodeError> {
        let map = inputs.map(name)?;
        let samples = map.get("samples").and_then(Value::as_tensor).ok_or_else(|| {
            NodeError::invalid_input(format!("input `{name}`: a LATENT is a map with the tensor `samples`"))
                .help("Link the output of Empty Latent Image, VAE Encode or KSampler.")
        })?;
        if samples.ndim() != 4 || samples.element_count() == 0 {
            return Err(NodeError::invalid_input(format!(
                "input `{name}`: samples of a LATENT are [batch, channels, height, width], found {:?}",
                samples.shape()
            )));
        }
        let rest = map.iter().filter(|(key, _)| *key != "samples");
        let rest = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { samples: tensor_from(samples)?, rest })
    }

    /// Whether the map has an entry of that name beside the samples.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    /// The value for an output: other samples, the rest as it was, but for how a latent without content should be resized.
    pub(crate) fn with_samples(mut self, samples: &Tensor) -> Result<Value, NodeError> {
        self.rest.retain(|key, _| !key.starts_with("downscale_ratio_"));
        self.rest.insert("samples".to_string(), tensor_into(samples)?.into());
        Ok(Value::Map(self.rest))
    }
}

/// The LATENT of those samples.
pub(crate) fn latent_value(samples: &Tensor) -> Result<Value, NodeError> {
    Ok(Value::map([("samples", Value::Tensor(tensor_into(samples)?))]))
}

/// The LATENT of zeros for pictures of that size.
pub(crate) fn empty_latent(batch: usize, height: usize, width: usize) -> Result<Value, NodeError> {
    let shape = [batch, 4, height / 8, width / 8];
    let zeros = TensorBuf::from_vec_f32(&shape, vec![0.0; shape.iter().product()])?;
    Ok(Value::map([("samples", Value::Tensor(zeros)), ("downscale_ratio_spacial", Value::Int(8))]))
}

/// The CONDITIONING of one prompt: hidden states `[1, T, D]` and, if there is one, the pooled state `[1, D]`.
pub(crate) fn conditioning(prompt: &Prompt) -> Result<Value, NodeError> {
    let mut options = BTreeMap::new();
    if let Some(pooled) = &prompt.pooled {
        options.insert(POOLED.to_string(), Value::Tensor(tensor_into(pooled)?));
    }
    let entry = Value::List(vec![tensor_into(&prompt.hidden)?.into(), Value::Map(options)]);
    Ok(Value::List(vec![entry]))
}

const POOLED: &str = "pooled_output";

/// What an entry of a CONDITIONING may say beside the prompt without changing what this plugin does with it.
const KNOWN: [&str; 8] =
    [POOLED, "attention_mask", "width", "height", "crop_w", "crop_h", "target_width", "target_height"];

/// Both CONDITIONINGs of a sampler. An entry that asks for something that is not done here, such as an area, is refused by name.
pub(crate) fn guidance(inputs: &Inputs, positive: &str, negative: &str) -> Result<Guidance, NodeError> {
    Ok(Guidance { positive: prompts(inputs, positive)?, negative: prompts(inputs, negative)? })
}

fn prompts(inputs: &Inputs, name: &str) -> Result<Vec<Prompt>, NodeError> {
    let wrong = || {
        NodeError::invalid_input(format!(
            "input `{name}`: a CONDITIONING is a list of pairs of a tensor [batch, tokens, width] and a map"
        ))
        .help("Link the output of CLIP Text Encode.")
    };
    let entries = inputs.list(name)?;
    if entries.is_empty() {
        return Err(wrong());
    }
    let prompt = |entry: &Value| {
        let [Value::Tensor(hidden), Value::Map(options)] = entry.as_list().unwrap_or_default() else {
            return Err(wrong());
        };
        if hidden.ndim() != 3 {
            return Err(wrong());
        }
        for (key, value) in options {
            let neutral = match key.as_str() {
                "strength" => value.as_float() == Some(1.0),
                "start_percent" => value.as_float() == Some(0.0),
                "end_percent" => value.as_float() == Some(1.0),
                key => KNOWN.contains(&key),
            };
            if !neutral && !value.is_none() {
                return Err(NodeError::invalid_input(format!(
                    "input `{name}`: this sampler does not know the conditioning option `{key}` ({})",
                    value.describe()
                ))
                .help("Take the node that sets it out of the graph."));
            }
        }
        let pooled = options.get(POOLED).and_then(Value::as_tensor).map(tensor_from).transpose()?;
        Ok(Prompt { hidden: tensor_from(hidden)?, pooled, time_ids: time_ids(options) })
    };
    entries.iter().map(prompt).collect()
}

/// The sizes that ComfyUI's CLIPTextEncodeSDXL sets, if they are there.
fn time_ids(options: &BTreeMap<String, Value>) -> Option<TimeIds> {
    let size = |name: &str| options.get(name).and_then(Value::as_float);
    let (height, width) = (size("height")?, size("width")?);
    let or = |name: &str, other: f64| size(name).unwrap_or(other);
    Some([
        height,
        width,
        or("crop_h", 0.0),
        or("crop_w", 0.0),
        or("target_height", height),
        or("target_width", width),
    ])
}

/// The learned words of the TI_EMBEDDING `name`; none if it is not linked.
pub(crate) fn embeddings_from(inputs: &Inputs, name: &str) -> Result<Vec<Embedding>, NodeError> {
    let Some(entries) = inputs.optional_list(name)? else { return Ok(Vec::new()) };
    let wrong = || {
        NodeError::invalid_input(format!(
            "input `{name}`: a TI_EMBEDDING is a list of maps with `name`, a tensor for each encoder, and `metadata`"
        ))
        .help("Link the output of Train Textual Inversion or Load Embedding.")
    };
    let read = |entry: &Value| {
        let (word, map) = entry.get("name").and_then(Value::as_str).zip(entry.as_map()).ok_or_else(wrong)?;
        let tensors = map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_tensor()?)));
        let vectors =
            tensors.map(|(key, tensor)| Ok((key, tensor_from(tensor)?))).collect::<Result<_, NodeError>>()?;
        let metadata = map.get("metadata").and_then(Value::as_map).into_iter().flatten();
        let metadata = metadata.map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_json().to_string(), str::to_string);
            (key.clone(), text)
        });
        Embedding::new(word, vectors, metadata.collect()).map_err(node_error)
    };
    entries.iter().map(read).collect()
}

/// Learned words as a TI_EMBEDDING: plain values, which any host can read.
pub(crate) fn embeddings_into(words: &[Embedding]) -> Result<Value, NodeError> {
    let entry = |word: &Embedding| {
        let metadata = word.metadata.iter().map(|(key, value)| (key.as_str(), Value::String(value.clone())));
        let mut map = BTreeMap::from([
            ("name".to_string(), Value::String(word.name.clone())),
            ("metadata".to_string(), Value::map(metadata)),
        ]);
        for (key, vectors) in &word.vectors {
            map.insert(key.clone(), tensor_into(vectors)?.into());
        }
        Ok(Value::Map(map))
    };
    Ok(Value::List(words.iter().map(entry).collect::<Result<_, NodeError>>()?))
}

/// The pictures of a concept as an IMAGE. Where sizes differ, smaller ones stand on grey in the middle of the largest.
pub(crate) fn concept_preview(concept: &Concept) -> Result<TensorBuf, NodeError> {
    let sizes = concept.items.iter().map(ConceptItem::size);
    let (height, width) = sizes.fold((0, 0), |(h, w), size| (h.max(size.0), w.max(size.1)));
    let padded = |item: &ConceptItem| {
        let (h, w) = item.size();
        let (above, left) = ((height - h) / 2, (width - w) / 2);
        let pixels = item.pixels.pad_with_zeros(1, above, height - h - above)?;
        pixels.pad_with_zeros(2, left, width - w - left)
    };
    let batch = concept.items.iter().map(padded).collect::<candle_core::Result<Vec<_>>>();
    let batch = batch.and_then(|items| Tensor::stack(&items, 0)).map_err(tensor_error)?;
    image_from_pixels(&batch)
}

/// The tensor where its numbers can be read.
pub(crate) fn to_cpu(tensor: &Tensor) -> vocable_engine::Result<Tensor> {
    Ok(tensor.to_device(&Device::Cpu)?)
}

/// Latents of zeros.
pub(crate) fn zeros(shape: &[usize]) -> vocable_engine::Result<Tensor> {
    Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
}

/// Width, height and bytes of one picture `[1, 3, H, W]` in −1..1, as files keep it.
pub(crate) fn bytes_from_pixels(pixels: &Tensor) -> vocable_engine::Result<(u32, u32, Vec<u8>)> {
    let (_, _, height, width) = pixels.dims4()?;
    let bytes = ((pixels + 1.0)? * 127.5)?.clamp(0f32, 255f32)?.permute((0, 2, 3, 1))?.flatten_all()?;
    let bytes = bytes.to_vec1::<f32>()?.into_iter().map(|value| value as u8).collect();
    Ok((width as u32, height as u32, bytes))
}

/// The Euclidean norm of each row.
pub(crate) fn row_norms(matrix: &Tensor) -> Result<Vec<f32>, NodeError> {
    let norms = || matrix.to_dtype(DType::F32)?.sqr()?.sum(1)?.sqrt()?.to_vec1::<f32>();
    norms().map_err(tensor_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: &[usize]) -> TensorBuf {
        let count: usize = shape.iter().product();
        TensorBuf::from_vec_f32(shape, (0..count).map(|i| i as f32 / count as f32).collect()).unwrap()
    }

    #[test]
    fn errors_keep_kind_and_help() {
        let error = node_error(vocable_engine::Error::not_found("no file `a`").help("look again"));
        assert_eq!((error.kind, error.help.as_str()), (ErrorKind::NotFound, "look again"));
    }

    #[test]
    fn tensors_come_back() {
        let buf = ramp(&[2, 3, 4]);
        let back = tensor_into(&tensor_from(&buf).unwrap()).unwrap();
        assert_eq!(back.dims(), [2, 3, 4]);
        assert_eq!(back.to_vec_f32().unwrap(), buf.to_vec_f32().unwrap());
    }

    #[test]
    fn pictures_come_back_cropped_from_the_middle() {
        let image = ramp(&[1, 10, 19, 4]);
        let pixels = pixels_from_image("pixels", &image, 8).unwrap();
        assert_eq!(pixels.dims(), [1, 3, 8, 16]);
        let back = image_from_pixels(&pixels).unwrap();
        let (image, back) = (image.to_vec_f32().unwrap(), back.to_vec_f32().unwrap());
        // One row and one column are left out at the beginning.
        assert!((back[0] - image[(19 + 1) * 4]).abs() < 1e-6);
        assert!((back[2] - image[(19 + 1) * 4 + 2]).abs() < 1e-6);
        assert!(pixels_from_image("pixels", &ramp(&[1, 7, 64, 3]), 8).unwrap_err().message.contains("64x7"));
        assert!(pixels_from_image("pixels", &ramp(&[8, 8]), 8).unwrap_err().message.contains("found [8, 8]"));
        assert_eq!(pixels_from_image("pixels", &ramp(&[2, 8, 8, 1]), 8).unwrap().dims(), [2, 3, 8, 8]);
    }

    #[test]
    fn what_is_out_of_range_is_clamped() {
        let pixels = Tensor::new(&[[[[-3f32]], [[0.0]], [[3.0]]]], &Device::Cpu).unwrap();
        assert_eq!(image_from_pixels(&pixels).unwrap().to_vec_f32().unwrap(), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn latents_keep_what_else_is_in_the_map() {
        let Value::Map(mut map) = empty_latent(2, 64, 96).unwrap() else { panic!("not a map") };
        map.insert("type".to_string(), "x".into());
        let inputs = Inputs::new().with("samples", Value::Map(map));
        let latent = Latent::from_input(&inputs, "samples").unwrap();
        assert_eq!(latent.samples.dims(), [2, 4, 8, 12]);
        let samples = latent.samples.clone();
        let value = latent.with_samples(&samples).unwrap();
        assert_eq!(value.get("type").and_then(Value::as_str), Some("x"));
        assert!(value.get("downscale_ratio_spacial").is_none());
        let wrong = Inputs::new().with("samples", Value::map([("noise", Value::Int(1))]));
        assert!(Latent::from_input(&wrong, "samples").is_err());
    }

    #[test]
    fn learned_words_come_back_and_are_plain_values() {
        let words = [crate::learning::tests::word("<a>", 2, 8)];
        let value = embeddings_into(&words).unwrap();
        assert_eq!(
            value.as_list().unwrap()[0].get("clip_l").and_then(Value::as_tensor).unwrap().dims(),
            [2, 8]
        );
        let back = embeddings_from(&Inputs::new().with("e", value), "e").unwrap();
        assert_eq!((back[0].name.as_str(), back[0].count()), ("<a>", 2));
        assert_eq!(back[0].metadata, words[0].metadata);
        assert!(embeddings_from(&Inputs::new(), "e").unwrap().is_empty());
        let wrong = Inputs::new().with("e", vec![Value::Int(3)]);
        assert!(embeddings_from(&wrong, "e").unwrap_err().message.contains("TI_EMBEDDING"));
        let nan = TensorBuf::from_vec_f32(&[1, 2], vec![f32::NAN, 0.0]).unwrap();
        let broken = Value::map([("name", Value::from("x")), ("clip_l", Value::from(nan))]);
        assert!(embeddings_from(&Inputs::new().with("e", vec![broken]), "e").is_err());
    }

    #[test]
    fn conditioning_options_that_are_not_done_are_refused_by_name() {
        let hidden = tensor_from(&ramp(&[1, 77, 8])).unwrap();
        let pooled = Some(hidden.narrow(1, 0, 1).unwrap().squeeze(1).unwrap());
        let plain = conditioning(&Prompt { hidden, pooled, time_ids: None }).unwrap();
        let inputs = Inputs::new().with("positive", plain.clone()).with("negative", plain.clone());
        let read = guidance(&inputs, "positive", "negative").unwrap();
        assert_eq!((read.positive.len(), read.negative[0].hidden.dims()), (1, &[1, 77, 8][..]));
        assert_eq!(read.positive[0].pooled.as_ref().unwrap().dims(), [1, 8]);
        assert_eq!(read.positive[0].time_ids, None);
        let sizes = [("height", Value::Int(64)), ("width", Value::Int(96)), ("crop_w", Value::Int(8))];
        assert_eq!(
            time_ids(&sizes.map(|(name, size)| (name.to_string(), size)).into()),
            Some([64.0, 96.0, 0.0, 8.0, 64.0, 96.0])
        );

        let Value::List(mut entries) = plain else { panic!("not a list") };
        if let Value::List(entry) = &mut entries[0] {
            entry[1] = Value::map([("area", Value::Int(3))]);
        }
        let inputs = Inputs::new().with("positive", entries).with("negative", Vec::<Value>::new());
        assert!(guidance(&inputs, "positive", "positive").unwrap_err().message.contains("`area`"));
        assert!(guidance(&inputs, "negative", "negative").is_err());
    }
}
