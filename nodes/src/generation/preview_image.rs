//! **Preview Image**: shows pictures without keeping them; the files go to the temporary folder.

use std::hash::{BuildHasher, RandomState};

use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use crate::files::{graph_texts, save_pictures};

/// Shows pictures.
pub(crate) struct PreviewImage;

impl Node for PreviewImage {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("PreviewImage", "Preview Image")
            .category("image")
            .description("Shows pictures without saving them among the results.")
            .search_aliases(["show image", "view image", "display image"])
            .input(InputSpec::new("images", "IMAGE").tooltip("The pictures."))
            .input(InputSpec::hidden("prompt", "PROMPT").tooltip("The graph, kept in the files."))
            .input(
                InputSpec::hidden("extra_pnginfo", "EXTRA_PNGINFO")
                    .tooltip("The front end's graph, kept in the files."),
            )
            .output(OutputSpec::new("images", "IMAGE").tooltip("The pictures, unchanged."))
            .output_node()
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let images = inputs.tensor("images")?.clone();
        let texts = graph_texts(&inputs, host);
        // Another name each time: front ends keep pictures by name.
        let unique = RandomState::new().hash_one(0) & 0xff_ffff;
        let saved =
            save_pictures(host, folder::TEMP, &format!("ComfyUI_temp_{unique:06x}"), &images, &texts)?;
        let outputs = saved.iter().fold(Outputs::new(), |outputs, (name, subfolder)| {
            outputs.ui_image(name, subfolder, folder::TEMP)
        });
        Ok(outputs.result(images))
    }
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::TensorBuf;

    use super::*;
    use crate::testing::Home;

    #[test]
    fn files_go_to_the_temporary_folder() {
        let home = Home::new();
        let images = TensorBuf::from_vec_f32(&[1, 2, 2, 3], vec![0.5; 12]).unwrap();
        let outputs = home.run(&PreviewImage, Inputs::new().with("images", images)).unwrap();
        assert!(outputs.ui.unwrap().contains("\"type\":\"temp\""));
        assert_eq!(std::fs::read_dir(home.path("temp")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(home.path("output")).unwrap().count(), 0);
    }
}
