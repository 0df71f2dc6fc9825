//! **Load Image**: a picture of the input folder, and a mask of where it is transparent.
//!
//! As in ComfyUI `name.png [output]` and `name.png [temp]` are pictures of the other folders; the host finds them.

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use crate::files::{Picture, read_picture};

/// Reads a picture.
pub(crate) struct LoadImage;

fn path(inputs: &Inputs, host: &HostContext<'_>) -> Result<PathBuf, NodeError> {
    host.find_file(folder::INPUT, inputs.string("image")?)
}

impl Node for LoadImage {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("LoadImage", "Load Image")
            .category("image")
            .description("Reads a picture, turned as its camera said.")
            .search_aliases(["open image", "read image", "upload image"])
            .input(
                InputSpec::files("image", folder::INPUT, ["png", "jpg", "jpeg", "webp"])
                    .accepts_paths()
                    .image_upload()
                    .tooltip("A PNG, JPEG or WebP file of the input folder. `name.png [output]` is one of the output folder."),
            )
            .output(OutputSpec::new("IMAGE", "IMAGE").tooltip("The picture, without alpha."))
            .output(
                OutputSpec::new("MASK", "MASK").tooltip("1 where the picture is transparent, 0 elsewhere."),
            )
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        let path = path(inputs, host)?;
        let bytes = std::fs::read(&path).map_err(|error| {
            NodeError::not_found(format!("{}: cannot be read", path.display())).caused_by(&error)
        })?;
        Ok(vocable_engine::hex(&Sha256::digest(bytes)))
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let Picture { image, mask } = read_picture(&path(&inputs, host)?)?;
        Ok(Outputs::new().result(image).result(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Home;

    #[test]
    fn the_fingerprint_is_that_of_the_contents() {
        let home = Home::new();
        let context = HostContext::new(&home.host);
        let inputs = Inputs::new().with("image", "a.png");
        image::RgbImage::new(2, 2).save(home.path("input/a.png")).unwrap();
        let before = LoadImage.fingerprint(&inputs, &context).unwrap();
        image::RgbImage::from_pixel(2, 2, image::Rgb([9, 9, 9])).save(home.path("input/a.png")).unwrap();
        assert_ne!(before, LoadImage.fingerprint(&inputs, &context).unwrap());
        let outputs = home.run(&LoadImage, inputs).unwrap();
        assert_eq!(outputs.results[0].as_tensor().unwrap().dims(), [1, 2, 2, 3]);
    }

    #[test]
    fn an_annotation_chooses_the_folder() {
        let home = Home::new();
        for (kind, side) in [("input", 1), ("output", 2), ("temp", 3)] {
            image::RgbImage::new(side, side).save(home.path(kind).join("a.png")).unwrap();
        }
        let side = |name: &str| {
            let outputs = home.run(&LoadImage, Inputs::new().with("image", name))?;
            Ok::<_, NodeError>(outputs.results[0].as_tensor().unwrap().dims()[1])
        };
        for (name, wanted) in [("a.png", 1), ("a.png [input]", 1), ("a.png [output]", 2), ("a.png [temp]", 3)]
        {
            assert_eq!(side(name).unwrap(), wanted, "{name}");
        }
        assert!(side("b.png [output]").unwrap_err().message.contains("among the output"));
    }
}
