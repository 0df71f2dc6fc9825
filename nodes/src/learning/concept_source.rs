//! Where the pictures of a concept come from: a folder, a list of files, or links. An input that has no effect there is refused by name.

use std::path::PathBuf;

use vocable_engine::concept::{CaptionSource, Concept, ConceptOptions};
use vocable_host_sdk::abi::{HostContext, Inputs, NodeError, TensorBuf, Value, folder};

use super::choice;
use super::pictures::{LinkedPictures, MASK_MEANS, MaskMeans, from_images};
use crate::encoding::file_stamp;
use crate::run::with_cancel;

/// Where the pictures come from.
pub(super) enum Source {
    Folder(PathBuf),
    Files(Vec<PathBuf>),
    Links(LinkedPictures),
}

impl Source {
    /// `inputs` holds lists, `one` the first value of each.
    pub(super) fn parse(inputs: &Inputs, one: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        let captions = values(inputs, "captions", "text", |value| match value {
            Value::None => Some(String::new()),
            value => value.as_str().map(str::to_string),
        })?;
        let tensors = |name: &str| values(inputs, name, "a tensor", |value| value.as_tensor().cloned());
        let masks: Vec<TensorBuf> = tensors("masks")?;
        let mask_means = choice(one, "mask_means", &MASK_MEANS)?.unwrap_or(MaskMeans::Counts);
        let listed = one.optional_string("files")?.unwrap_or_default();
        let listed: Vec<&str> = listed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if inputs.get("images").is_some() {
            if !listed.is_empty() {
                return Err(no_effect(
                    "files",
                    "the pictures come from `images`",
                    "Empty it, or take the link away.",
                ));
            }
            return Ok(Self::Links(LinkedPictures {
                images: tensors("images")?,
                captions,
                masks,
                mask_means,
            }));
        }
        let files = "the pictures come from files, and it belongs to linked `images`";
        if captions.iter().any(|caption| !caption.trim().is_empty()) {
            let help = "Link pictures to `images`, or put a .txt file beside each picture and choose the caption_source `text files`.";
            return Err(no_effect("captions", files, help));
        }
        if !masks.is_empty() {
            let help =
                "Link pictures to `images`, or use pictures with transparent places and `alpha_as_weight`.";
            return Err(no_effect("masks", files, help));
        }
        let folder = one.optional_string("folder")?.filter(|name| !name.is_empty());
        if listed.is_empty() {
            let folder = folder.ok_or_else(|| {
                NodeError::invalid_input(
                    "there are no pictures: neither `folder` nor `files` nor `images` is given",
                )
                .help("Choose a folder of the input folder that holds a few pictures of the subject.")
            })?;
            return Ok(Self::Folder(host.find_file(folder::INPUT, folder)?));
        }
        let find = |name: &&str| {
            let beside =
                folder.and_then(|folder| host.find_file(folder::INPUT, &format!("{folder}/{name}")).ok());
            beside.map_or_else(|| host.find_file(folder::INPUT, name), Ok)
        };
        Ok(Self::Files(listed.iter().map(find).collect::<Result<_, _>>()?))
    }

    /// Reads the pictures.
    pub(super) fn load(
        &self,
        options: &ConceptOptions,
        host: &HostContext<'_>,
    ) -> Result<Concept, NodeError> {
        match self {
            Self::Folder(path) => with_cancel(host, |cancel| Concept::load_folder(path, options, cancel)),
            Self::Files(files) => with_cancel(host, |cancel| Concept::load_files(files, options, cancel)),
            Self::Links(_) if options.captions != CaptionSource::Templates => Err(no_effect(
                "caption_source",
                "the pictures come from `images`, which have neither files nor names",
                "Choose `templates`, and link captions if there are any.",
            )),
            Self::Links(linked) => from_images(linked, options, host),
        }
    }

    /// Name, size and time of each file that may be read.
    pub(super) fn stamp(&self) -> String {
        let mut files = match self {
            Self::Folder(path) => std::fs::read_dir(path)
                .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default(),
            Self::Files(files) => {
                files.iter().flat_map(|file| [file.clone(), file.with_extension("txt")]).collect()
            }
            Self::Links(_) => Vec::new(),
        };
        files.sort();
        files.iter().map(|file| format!("{}={};", file.display(), file_stamp(file))).collect()
    }
}

/// All values of a list input; none if it was left out.
fn values<T>(
    inputs: &Inputs,
    name: &str,
    wanted: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>, NodeError> {
    let values: &[Value] = match inputs.get(name) {
        None => &[],
        Some(Value::List(values)) => values.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let wrong = |value: &Value| {
        NodeError::invalid_input(format!("input `{name}` should be {wanted}, found {}", value.describe()))
    };
    values.iter().map(|value| read(value).ok_or_else(|| wrong(value))).collect()
}

fn no_effect(name: &str, why: &str, help: &str) -> NodeError {
    NodeError::invalid_input(format!("input `{name}` has no effect: {why}")).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::{LoadConceptImages, flat};
    use crate::testing::Home;

    fn grey(side: usize) -> Value {
        TensorBuf::from_vec_f32(&[1, side, side, 3], vec![0.5; side * side * 3]).unwrap().into()
    }

    #[test]
    fn inputs_without_effect_are_refused_by_name() {
        let home = Home::new();
        std::fs::create_dir(home.path("input/pet")).unwrap();
        image::RgbImage::new(40, 40).save(home.path("input/pet/a.png")).unwrap();
        let run = |inputs: Inputs| {
            home.run(&LoadConceptImages, inputs.with("resolution", vec![Value::Int(32)])).map(|_| ())
        };
        let folder = || Inputs::new().with("folder", vec![Value::from("pet")]);
        let linked = || Inputs::new().with("images", vec![grey(40)]);
        let fails = |inputs: Inputs| run(inputs).unwrap_err().message;
        let texts = |text: &str| vec![Value::from(text)];
        run(folder()).unwrap();
        run(folder().with("captions", texts(" "))).unwrap();
        run(linked()).unwrap();
        assert!(fails(folder().with("captions", texts("a cat"))).contains("`captions` has no effect"));
        assert!(fails(folder().with("masks", vec![grey(40)])).contains("`masks` has no effect"));
        assert!(fails(linked().with("files", texts("a.png"))).contains("`files` has no effect"));
        let source = linked().with("caption_source", texts("text files"));
        assert!(fails(source).contains("`caption_source` has no effect"));
        assert!(fails(linked().with("captions", vec![Value::Int(3)])).contains("`captions` should be text"));
        assert!(fails(Inputs::new()).contains("there are no pictures"));
    }

    #[test]
    fn files_may_lie_in_the_folder() {
        let home = Home::new();
        let context = HostContext::new(&home.host);
        std::fs::create_dir(home.path("input/pet")).unwrap();
        for name in ["input/pet/a.png", "input/b.png"] {
            std::fs::write(home.path(name), b"x").unwrap();
        }
        let inputs = Inputs::new()
            .with("folder", vec![Value::from("pet")])
            .with("files", vec![Value::from("a.png\n\n b.png ")]);
        let source = Source::parse(&inputs, &flat(&inputs), &context).unwrap();
        let Source::Files(files) = &source else { panic!("not files") };
        assert_eq!(files, &[home.path("input/pet/a.png"), home.path("input/b.png")]);
        assert!(source.stamp().contains("a.png=1@"), "{}", source.stamp());
    }
}
