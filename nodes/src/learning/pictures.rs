//! Concepts from pictures that other nodes made.

use sha2::{Digest, Sha256};
use vocable_engine::concept::{Concept, ConceptOptions};
use vocable_host_sdk::abi::{HostContext, NodeError, TensorBuf};

use crate::convert::{ImageShape, tensor_from};
use crate::run::with_cancel;

/// One concept of several batches of pictures, which may differ in size. `captions`: none, one for all, or one for each picture of all batches;
/// `masks`: none, one for all, or one for each batch.
pub(super) fn from_images(
    images: &[TensorBuf],
    captions: &[String],
    masks: &[TensorBuf],
    options: &ConceptOptions,
    host: &HostContext<'_>,
) -> Result<Concept, NodeError> {
    let shapes = images.iter().map(|image| ImageShape::of("images", image)).collect::<Result<Vec<_>, _>>()?;
    let total: usize = shapes.iter().map(|shape| shape.batch).sum();
    for (name, found, wanted) in [("captions", captions.len(), total), ("masks", masks.len(), images.len())] {
        if found > 1 && found != wanted {
            return Err(NodeError::invalid_input(format!(
                "input `{name}`: {found} of them, wanted none, one, or {wanted}"
            )));
        }
    }
    let mut first = 0;
    let mut concepts = Vec::new();
    for (index, (image, shape)) in images.iter().zip(&shapes).enumerate() {
        let own = if captions.len() > 1 { &captions[first..first + shape.batch] } else { captions };
        first += shape.batch;
        let mask = masks.get(if masks.len() > 1 { index } else { 0 });
        let mask = mask.filter(|mask| !is_no_mask(mask, shape)).map(tensor_from).transpose()?;
        let pixels = tensor_from(image)?;
        concepts.push(with_cancel(host, |cancel| {
            Concept::from_images(&pixels, own, mask.as_ref(), options, cancel)
        })?);
    }
    merged(concepts).ok_or_else(|| {
        NodeError::invalid_input("input `images`: there is no picture")
            .help("Link a node that makes pictures.")
    })
}

/// Load Image's way of saying that a picture has no transparency: 64 × 64 zeros for a picture of another size.
fn is_no_mask(mask: &TensorBuf, shape: &ImageShape) -> bool {
    mask.dims() == [1, 64, 64]
        && (shape.height, shape.width) != (64, 64)
        && mask.to_vec_f32().is_ok_and(|values| values.iter().all(|value| *value == 0.0))
}

fn merged(concepts: Vec<Concept>) -> Option<Concept> {
    if concepts.len() < 2 {
        return concepts.into_iter().next();
    }
    let mut hash = Sha256::new();
    let (mut items, mut problems) = (Vec::new(), Vec::new());
    for (index, mut concept) in concepts.into_iter().enumerate() {
        hash.update(&concept.fingerprint);
        let place = |text: &str| format!("batch {}, {text}", index + 1);
        concept.items.iter_mut().for_each(|item| item.name = place(&item.name));
        items.append(&mut concept.items);
        problems.extend(concept.problems.iter().map(|problem| place(problem)));
    }
    let fingerprint = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Concept { items, problems, fingerprint })
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::SilentHost;

    use super::*;

    fn grey(batch: usize, side: usize) -> TensorBuf {
        TensorBuf::from_vec_f32(&[batch, side, side, 3], vec![0.5; batch * side * side * 3]).unwrap()
    }

    #[test]
    fn batches_of_several_sizes_become_one_concept() {
        let host = SilentHost::default();
        let options = ConceptOptions { resolution: 64, ..ConceptOptions::default() };
        let make = |captions: &[&str], masks: &[TensorBuf]| {
            let captions: Vec<String> = captions.iter().map(ToString::to_string).collect();
            from_images(&[grey(2, 64), grey(1, 80)], &captions, masks, &options, &HostContext::new(&host))
        };
        let concept = make(&["a", "b", "c"], &[]).unwrap();
        let captions: Vec<_> = concept.items.iter().map(|item| item.caption.clone().unwrap()).collect();
        assert_eq!(captions, ["a", "b", "c"]);
        assert_eq!(concept.items[2].name, "batch 2, image 1");
        let none = TensorBuf::from_vec_f32(&[1, 64, 64], vec![0.0; 64 * 64]).unwrap();
        assert!(make(&[], &[grey(1, 3)]).is_err());
        assert!(make(&["a", "b"], &[]).unwrap_err().message.contains("captions"));
        let full = TensorBuf::from_vec_f32(&[1, 64, 64], vec![1.0; 64 * 64]).unwrap();
        assert!(make(&[], &[full, none]).unwrap().items[2].weight.is_none());
    }
}
