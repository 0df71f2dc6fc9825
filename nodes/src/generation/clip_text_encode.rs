//! **CLIP Text Encode (Prompt)**: a prompt as the sampler understands it.
//!
//! As in ComfyUI an `embedding:name` that is not there is left out with a warning; Encode Prompt with Embeddings makes it an error.
//! Unlike there, a file that changed is read again.

use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use crate::convert::conditioning;
use crate::encoding::{Library, encode, prompt_stamp};
use crate::handles::Clip;
use crate::run::with_cancel;

/// Encodes a prompt.
pub(crate) struct ClipTextEncode;

impl Node for ClipTextEncode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("CLIPTextEncode", "CLIP Text Encode (Prompt)")
            .category("model/conditioning")
            .description("Encodes a prompt with a text encoder, to guide a sampler.")
            .search_aliases(["prompt", "text", "positive prompt", "negative prompt"])
            .input(InputSpec::string("text").multiline().dynamic_prompts().tooltip(
                "The prompt. (word) and (word:1.2) give weight, embedding:name takes a file of the embeddings folder.",
            ))
            .input(InputSpec::new("clip", Clip::TAG).tooltip("The text encoder."))
            .output(OutputSpec::new("CONDITIONING", "CONDITIONING").tooltip("The encoded prompt."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        prompt_stamp(inputs, host)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let clip = Clip::from_input(&inputs, "clip")?;
        let text = inputs.string("text")?;
        let folders = host.folders(folder::EMBEDDINGS);
        let encoded = with_cancel(host, |cancel| {
            let mut library = Library::new(&clip, Vec::new(), folders)?;
            let spelled = library.spell(text)?;
            for error in library.unusable() {
                host.log(Level::Warn, &format!("left out of the prompt: {error}"));
            }
            for name in &spelled.prompt.missing {
                host.log(
                    Level::Warn,
                    &format!("left out of the prompt: embedding:{name} (not found, or it does not fit)"),
                );
            }
            encode(&clip, &spelled, cancel)
        })?;
        Ok(Outputs::one(conditioning(&encoded)?))
    }
}
