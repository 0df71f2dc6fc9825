//! **KSampler**: turns noise into the latents of pictures, guided by two prompts. Same seed, same noise as ComfyUI.

use std::sync::Arc;

use vocable_engine::diffusion::{SAMPLERS, SCHEDULERS, StepInfo, ksampler_sigmas};
use vocable_engine::sampling::{Guidance, Sampling, noise_of_rows};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, Value,
};

use crate::convert::{Latent, guidance};
use crate::handles::Model;
use crate::run::with_cancel;

/// Denoises latents.
pub(crate) struct KSampler;

struct KSamplerInputs {
    model: Arc<Model>,
    sampling: Sampling,
    guidance: Guidance,
    latent: Latent,
    /// Where the pictures stood in the batch that they were taken from, if they were: decides their noise.
    batch_index: Option<Vec<usize>>,
}

impl KSamplerInputs {
    fn parse(inputs: &Inputs) -> Result<Self, NodeError> {
        let latent = Latent::from_input(inputs, "latent_image")?;
        if latent.has("noise_mask") {
            return Err(NodeError::invalid_input(
                "input `latent_image`: this sampler does not know the latent option `noise_mask`",
            )
            .help("Take the node that sets it out of the graph."));
        }
        Ok(Self {
            model: Model::from_input(inputs, "model")?,
            sampling: Sampling {
                seed: inputs.seed("seed")?,
                steps: inputs.count("steps")?,
                cfg: inputs.float("cfg")?,
                sampler: inputs.string("sampler_name")?.to_string(),
                scheduler: inputs.string("scheduler")?.to_string(),
                denoise: inputs.optional_float("denoise")?.unwrap_or(1.0),
            },
            guidance: guidance(inputs, "positive", "negative")?,
            batch_index: batch_index(inputs, latent.samples.dims()[0])?,
            latent,
        })
    }
}

/// The latent's `batch_index`: one place for each of its `count` pictures.
fn batch_index(inputs: &Inputs, count: usize) -> Result<Option<Vec<usize>>, NodeError> {
    let Some(found) = inputs.map("latent_image")?.get("batch_index").filter(|found| !found.is_none()) else {
        return Ok(None);
    };
    let place = |value: &Value| value.as_int().and_then(|place| usize::try_from(place).ok());
    let places = found.as_list().and_then(|places| places.iter().map(place).collect::<Option<Vec<usize>>>());
    match places {
        Some(places) if places.len() == count => Ok(Some(places)),
        _ => Err(NodeError::invalid_input(format!(
            "input `latent_image`: `batch_index` is {}, wanted {count} whole number{} from 0 on, one for each picture",
            found.describe(),
            if count == 1 { "" } else { "s" }
        ))
        .help("Take the node that sets it out of the graph.")),
    }
}

impl Node for KSampler {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("KSampler", "KSampler")
            .category("model/sampling")
            .description("Denoises latents step by step with a model, towards one prompt and away from another.")
            .search_aliases(["sampler", "generate", "denoise", "txt2img", "img2img"])
            .input(InputSpec::new("model", Model::TAG).tooltip("The model that denoises."))
            .input(InputSpec::seed("seed").tooltip("Decides the noise: the same seed makes the same pictures."))
            .input(
                InputSpec::int("steps")
                    .default(20)
                    .range(1, 10_000)
                    .tooltip("How many steps the way from noise to picture has. More are slower and, up to a point, better."),
            )
            .input(InputSpec::float("cfg").default(8.0).range(0.0, 100.0).step(0.1).round(0.01).tooltip(
                "How strongly the prompt guides. High values follow it more closely and may look overdone; 1 leaves the \
                 negative prompt out and is twice as fast.",
            ))
            .input(
                InputSpec::combo("sampler_name", SAMPLERS.iter().map(|(name, _)| *name))
                    .tooltip("The method of taking the steps. Those called ancestral add fresh noise in between."),
            )
            .input(
                InputSpec::combo("scheduler", SCHEDULERS.iter().map(|(name, _)| *name))
                    .tooltip("How the noise levels are spread over the steps."),
            )
            .input(InputSpec::new("positive", "CONDITIONING").tooltip("What the pictures should show."))
            .input(InputSpec::new("negative", "CONDITIONING").tooltip("What the pictures should not show."))
            .input(InputSpec::new("latent_image", "LATENT").tooltip("Blank latents, or encoded pictures to change."))
            .input(
                InputSpec::float("denoise")
                    .default(1.0)
                    .range(0.0, 1.0)
                    .step(0.01)
                    .tooltip("1 starts from pure noise. Lower values keep more of the picture that was given."),
            )
            .output(OutputSpec::new("LATENT", "LATENT").tooltip("The denoised latents."))
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let KSamplerInputs { model, sampling, guidance, latent, batch_index } =
            KSamplerInputs::parse(&inputs)?;
        let (denoiser, blank) = (&model.denoiser, &latent.samples);
        let samples = with_cancel(host, |cancel| {
            let mut tell = |info: StepInfo<'_>| -> vocable_engine::Result<()> {
                host.progress(info.step as u64 + 1, info.total as u64, None);
                Ok(())
            };
            let Some(rows) = &batch_index else {
                return denoiser.sample(&sampling, &guidance, blank, cancel, &mut tell);
            };
            let Sampling { sampler, scheduler, steps, denoise, seed, .. } = &sampling;
            let sigmas = ksampler_sigmas(&denoiser.schedule, sampler, scheduler, *steps, *denoise)?;
            if sigmas.len() < 2 {
                return Ok(blank.clone());
            }
            let noise = noise_of_rows(*seed, blank.dims(), rows, cancel)?;
            denoiser.sample_with(&sampling, &guidance, blank, &sigmas, &noise, cancel, &mut tell)
        })?;
        Ok(Outputs::one(latent.with_samples(&samples)?))
    }
}
