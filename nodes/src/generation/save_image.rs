//! **Save Image**: PNG files in the output folder that carry the graph that made them.

use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, TensorBuf, folder,
};

use crate::files::{graph_texts, save_pictures};

/// Writes pictures.
pub(crate) struct SaveImage;

struct SaveImageInputs {
    images: TensorBuf,
    prefix: String,
    texts: Vec<(String, String)>,
}

impl SaveImageInputs {
    fn parse(inputs: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        Ok(Self {
            images: inputs.tensor("images")?.clone(),
            prefix: inputs.optional_string("filename_prefix")?.unwrap_or("ComfyUI").to_string(),
            texts: graph_texts(inputs, host),
        })
    }
}

impl Node for SaveImage {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("SaveImage", "Save Image")
            .category("image")
            .description("Writes pictures into the output folder, with the graph that made them inside.")
            .search_aliases(["save", "export image", "write image", "output image"])
            .input(InputSpec::new("images", "IMAGE").tooltip("The pictures."))
            .input(InputSpec::string("filename_prefix").default("ComfyUI").tooltip(
                "Beginning of the file names; a slash makes a subfolder. May hold %date:yyyy-MM-dd%, %year%, %width% and the like.",
            ))
            .input(InputSpec::hidden("prompt", "PROMPT").tooltip("The graph, kept in the files."))
            .input(InputSpec::hidden("extra_pnginfo", "EXTRA_PNGINFO").tooltip("The front end's graph, kept in the files."))
            .output(OutputSpec::new("images", "IMAGE").tooltip("The pictures, unchanged."))
            .output_node()
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let SaveImageInputs { images, prefix, texts } = SaveImageInputs::parse(&inputs, host)?;
        let saved = save_pictures(host, folder::OUTPUT, &prefix, &images, &texts)?;
        let outputs = saved.iter().fold(Outputs::new(), |outputs, (name, subfolder)| {
            outputs.ui_image(name, subfolder, folder::OUTPUT)
        });
        Ok(outputs.result(images))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;

    use super::*;
    use crate::testing::Home;

    #[test]
    fn files_carry_the_graph_and_ui_names_them() {
        let home = Home::new();
        let images = TensorBuf::from_vec_f32(
            &[2, 1, 2, 3],
            vec![0.0, 0.5, 1.0, 2.0, -1.0, 0.999, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        );
        let inputs = Inputs::new()
            .with("images", images.unwrap())
            .with("filename_prefix", "pets/zorvo")
            .with("prompt", "{\"1\":{\"class_type\":\"Ü\"}}")
            .with("extra_pnginfo", "{\"workflow\":{\"version\":1}}");
        let outputs = home.run(&SaveImage, inputs).unwrap();
        let ui = outputs.ui.unwrap();
        assert!(
            ui.contains("zorvo_00001_.png") && ui.contains("zorvo_00002_.png") && ui.contains("pets"),
            "{ui}"
        );

        let file = File::open(home.path("output/pets/zorvo_00001_.png")).unwrap();
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 127, 255, 255, 0, 254]);
        let texts: Vec<_> = reader
            .info()
            .uncompressed_latin1_text
            .iter()
            .map(|chunk| (&*chunk.keyword, &*chunk.text))
            .collect();
        assert_eq!(
            texts,
            [("prompt", "{\"1\":{\"class_type\":\"\\u00dc\"}}"), ("workflow", "{\"version\":1}")]
        );
    }

    #[test]
    fn a_prefix_outside_is_refused() {
        let images = TensorBuf::from_vec_f32(&[1, 1, 1, 3], vec![0.0; 3]).unwrap();
        let inputs = Inputs::new().with("images", images).with("filename_prefix", "../a");
        assert!(Home::new().run(&SaveImage, inputs).unwrap_err().message.contains("../a"));
    }
}
