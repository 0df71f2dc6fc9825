//! Concepts from pictures that other nodes made.

use sha2::{Digest, Sha256};
use vocable_engine::concept::{Concept, ConceptOptions};
use vocable_host_sdk::abi::{HostContext, NodeError, TensorBuf};

use crate::convert::{ImageShape, tensor_from};
use crate::run::with_cancel;

/// Batches of pictures, which may differ in size, with what belongs to them.
pub(super) struct LinkedPictures {
    pub(super) images: Vec<TensorBuf>,
    /// None, one for all, or one for each picture of all batches. A single text of several lines stands for as many captions.
    pub(super) captions: Vec<String>,
    /// None, one for all, or one for each batch.
    pub(super) masks: Vec<TensorBuf>,
    pub(super) mask_means: MaskMeans,
}

/// What 1 means in a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaskMeans {
    /// That the place is learned from.
    Counts,
    /// That it is not: Load Image's mask is 1 where a picture is transparent.
    Transparent,
}

/// By name; the first is the default.
pub(super) const MASK_MEANS: [(&str, MaskMeans); 2] =
    [("counts", MaskMeans::Counts), ("transparent", MaskMeans::Transparent)];

impl LinkedPictures {
    /// The captions of so many pictures. A list holds one for each, empty ones included; only a lone text for several pictures is cut at its lines.
    fn captions_of(&self, pictures: usize) -> Vec<String> {
        match self.captions.as_slice() {
            [text] if pictures > 1 => text.lines().map(str::to_string).collect(),
            texts => texts.to_vec(),
        }
    }

    /// How much each place counts; `None` for 64 × 64 zeros, Load Image's way of saying that a picture has no transparency.
    fn weight(&self, mask: &TensorBuf) -> Result<Option<TensorBuf>, NodeError> {
        let (dims, values) = (mask.dims(), mask.to_vec_f32()?);
        if matches!(dims.as_slice(), [_, 64, 64]) && values.iter().all(|value| *value == 0.0) {
            return Ok(None);
        }
        Ok(Some(match self.mask_means {
            MaskMeans::Counts => mask.clone(),
            MaskMeans::Transparent => {
                TensorBuf::from_vec_f32(&dims, values.iter().map(|value| 1.0 - *value).collect())?
            }
        }))
    }
}

/// One concept of all the pictures.
pub(super) fn from_images(
    linked: &LinkedPictures,
    options: &ConceptOptions,
    host: &HostContext<'_>,
) -> Result<Concept, NodeError> {
    let LinkedPictures { images, masks, .. } = linked;
    let shapes = images.iter().map(|image| ImageShape::of("images", image)).collect::<Result<Vec<_>, _>>()?;
    let total: usize = shapes.iter().map(|shape| shape.batch).sum();
    let captions = linked.captions_of(total);
    for (name, found, wanted) in [("captions", captions.len(), total), ("masks", masks.len(), images.len())] {
        if found > 1 && found != wanted {
            return Err(NodeError::invalid_input(format!(
                "input `{name}`: {found} of them, wanted none, one, or {wanted}"
            ))
            .help("Of a lone text for several pictures each line counts as a caption."));
        }
    }
    let mut first = 0;
    let mut concepts = Vec::new();
    for (index, (image, shape)) in images.iter().zip(&shapes).enumerate() {
        let own =
            if captions.len() > 1 { &captions[first..first + shape.batch] } else { captions.as_slice() };
        first += shape.batch;
        let mask = masks.get(if masks.len() > 1 { index } else { 0 });
        let weight = mask.map(|mask| linked.weight(mask)).transpose()?.flatten();
        let weight = weight.as_ref().map(tensor_from).transpose()?;
        let pixels = tensor_from(image)?;
        concepts.push(with_cancel(host, |cancel| {
            Concept::from_images(&pixels, own, weight.as_ref(), options, cancel)
        })?);
    }
    merged(concepts).ok_or_else(|| {
        NodeError::invalid_input("input `images`: there is no picture")
            .help("Link a node that makes pictures.")
    })
}

fn merged(concepts: Vec<Concept>) -> Option<Concept> {
    if concepts.len() < 2 {
        return concepts.into_iter().next();
    }
    let mut hash = Sha256::new();
    let (mut items, mut problems, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for (index, mut concept) in concepts.into_iter().enumerate() {
        hash.update(&concept.fingerprint);
        let place = |text: &str| format!("batch {}, {text}", index + 1);
        concept.items.iter_mut().for_each(|item| item.name = place(&item.name));
        items.append(&mut concept.items);
        problems.extend(concept.problems.iter().map(|problem| place(problem)));
        remarks.extend(concept.remarks.iter().map(|remark| place(remark)));
    }
    let fingerprint = vocable_engine::hex(&hash.finalize());
    Some(Concept { items, problems, remarks, fingerprint })
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::SilentHost;

    use super::*;

    fn grey(batch: usize, side: usize) -> TensorBuf {
        TensorBuf::from_vec_f32(&[batch, side, side, 3], vec![0.5; batch * side * side * 3]).unwrap()
    }

    fn mask(side: usize, value: f32) -> TensorBuf {
        TensorBuf::from_vec_f32(&[1, side, side], vec![value; side * side]).unwrap()
    }

    fn make(
        images: &[TensorBuf],
        captions: &[&str],
        masks: &[TensorBuf],
        mask_means: MaskMeans,
    ) -> Result<Concept, NodeError> {
        let options = ConceptOptions { resolution: 64, ..ConceptOptions::default() };
        let captions = captions.iter().map(ToString::to_string).collect();
        let linked = LinkedPictures { images: images.to_vec(), captions, masks: masks.to_vec(), mask_means };
        from_images(&linked, &options, &HostContext::new(&SilentHost::default()))
    }

    fn captions(concept: &Concept) -> Vec<&str> {
        concept.items.iter().map(|item| item.caption.as_deref().unwrap_or("-")).collect()
    }

    #[test]
    fn batches_of_several_sizes_become_one_concept() {
        let make = |captions: &[&str], masks: &[TensorBuf]| {
            make(&[grey(2, 64), grey(1, 80)], captions, masks, MaskMeans::Counts)
        };
        let concept = make(&["a", "b", "c"], &[]).unwrap();
        assert_eq!(captions(&concept), ["a", "b", "c"]);
        assert_eq!(concept.items[2].name, "batch 2, image 1");
        assert!(make(&[], &[grey(1, 3)]).is_err());
        assert!(make(&["a", "b"], &[]).unwrap_err().message.contains("captions"));
        assert!(make(&[], &[mask(64, 1.0), mask(64, 0.0)]).unwrap().items[2].weight.is_none());
    }

    #[test]
    fn a_list_holds_a_caption_for_each_picture_and_a_lone_text_one_on_each_line() {
        let images = [grey(1, 64), grey(1, 64), grey(1, 64)];
        let of = |texts: &[&str], images: &[TensorBuf]| make(images, texts, &[], MaskMeans::Counts);
        // As ComfyUI's nodes for data sets give them: empty where there is no file, and as many lines as the file had.
        let concept = of(&["", "a cat\non a mat", "a dog"], &images).unwrap();
        assert_eq!(captions(&concept), ["-", "a cat on a mat", "a dog"]);
        assert_eq!(concept.remarks, ["batch 1, 1 of 1 pictures has an empty caption: templates are used"]);
        assert_eq!(captions(&of(&["a\n\nc"], &images).unwrap()), ["a", "-", "c"]);
        assert_eq!(captions(&of(&["all"], &images).unwrap()), ["all"; 3]);
        assert_eq!(captions(&of(&["two\nlines"], &images[..1]).unwrap()), ["two lines"]);
        assert_eq!(captions(&of(&[""], &images).unwrap()), ["-"; 3]);
        assert!(of(&["a\nb"], &images).unwrap_err().message.contains("2 of them"));
    }

    #[test]
    fn load_images_mask_can_be_linked_as_it_is() {
        let first = |side: usize, mask: TensorBuf, means: MaskMeans| {
            let concept = make(&[grey(1, side)], &[], &[mask], means).unwrap();
            let weight = concept.items[0].weight.as_ref().map(|weight| weight.flatten_all().unwrap());
            weight.map(|weight| weight.to_vec1::<f32>().unwrap()[0])
        };
        assert_eq!(first(64, mask(64, 0.75), MaskMeans::Counts), Some(0.75));
        assert_eq!(first(64, mask(64, 0.75), MaskMeans::Transparent), Some(0.25));
        // What stands for a picture without alpha, whatever the picture's size.
        for side in [64, 80] {
            for means in [MaskMeans::Counts, MaskMeans::Transparent] {
                assert_eq!(first(side, mask(64, 0.0), means), None, "{side} {means:?}");
            }
        }
    }
}
