//! Pictures to and from files.

use std::path::Path;

use vocable_engine::concept::decode_upright;
use vocable_engine::write_whole;
use vocable_host_sdk::abi::{HostContext, NodeError, TensorBuf};

use super::{Slot, make_folder};
use crate::convert::{ImageShape, node_error};

/// A picture from a file: the right way up, alpha apart.
pub(crate) struct Picture {
    /// IMAGE of one picture: `[1, H, W, 3]`.
    pub(crate) image: TensorBuf,
    /// MASK: `[1, H, W]`, 1 where the picture is transparent; without alpha `[1, 64, 64]` of zeros, as in ComfyUI.
    pub(crate) mask: TensorBuf,
}

/// Reads a picture and turns it as its EXIF orientation says.
pub(crate) fn read_picture(path: &Path) -> Result<Picture, NodeError> {
    let bytes =
        std::fs::read(path).map_err(|error| NodeError::not_found(format!("{}: {error}", path.display())))?;
    let picture = decode_upright(&bytes).map_err(|why| {
        NodeError::invalid_input(format!("{}: {why}", path.display())).help("PNG, JPEG and WebP are read.")
    })?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mask = if picture.color().has_alpha() {
        let alpha = picture.to_rgba32f().pixels().map(|pixel| 1.0 - pixel[3]).collect();
        TensorBuf::from_vec_f32(&[1, height, width], alpha)?
    } else {
        TensorBuf::from_vec_f32(&[1, 64, 64], vec![0.0; 64 * 64])?
    };
    let image = TensorBuf::from_vec_f32(&[1, height, width, 3], picture.into_rgb32f().into_raw())?;
    Ok(Picture { image, mask })
}

/// A picture that was written: name, subfolder.
pub(crate) type Saved = (String, String);

/// Writes each picture of `images` as PNG into the folder of `kind`, with `texts` in it.
pub(crate) fn save_pictures(
    host: &HostContext<'_>,
    kind: &str,
    prefix: &str,
    images: &TensorBuf,
    texts: &[(String, String)],
) -> Result<Vec<Saved>, NodeError> {
    let shape = ImageShape::of("images", images)?;
    let mut slot = Slot::find(&host.folder(kind)?, prefix, shape.width, shape.height)?;
    make_folder(&slot.folder)?;
    let values = images.to_vec_f32()?;
    let pictures = values.chunks_exact(shape.height * shape.width * shape.channels);
    pictures
        .enumerate()
        .map(|(index, picture)| {
            host.check_cancelled()?;
            let name = slot.next_name(index);
            let bytes = encode(shape, picture, texts).map_err(|error| {
                NodeError::internal(format!("{name}: cannot be encoded")).caused_by(&error)
            })?;
            write_whole(&slot.folder.join(&name), &bytes).map_err(node_error)?;
            host.progress(index as u64 + 1, shape.batch as u64, None);
            Ok((name, slot.subfolder.clone()))
        })
        .collect()
}

fn encode(
    shape: ImageShape,
    picture: &[f32],
    texts: &[(String, String)],
) -> Result<Vec<u8>, png::EncodingError> {
    // Cut off, not rounded: ComfyUI's pixels.
    let bytes: Vec<u8> = picture.iter().map(|value| (value * 255.0) as u8).collect();
    let mut file = Vec::new();
    // A side beyond u32 would not fit into memory.
    let mut encoder = png::Encoder::new(&mut file, shape.width as u32, shape.height as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match shape.channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        _ => png::ColorType::Rgba,
    });
    for (keyword, text) in texts {
        encoder.add_text_chunk(keyword.clone(), text.clone())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&bytes)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Home;

    #[test]
    fn alpha_becomes_a_mask() {
        let home = Home::new();
        let path = home.path("input/a.png");
        let mut picture = image::RgbaImage::from_pixel(3, 2, image::Rgba([255, 0, 51, 255]));
        picture.put_pixel(2, 1, image::Rgba([0, 255, 0, 0]));
        picture.save(&path).unwrap();
        let read = read_picture(&path).unwrap();
        assert_eq!((read.image.dims(), read.mask.dims()), (vec![1, 2, 3, 3], vec![1, 2, 3]));
        assert_eq!(read.image.to_vec_f32().unwrap()[..3], [1.0, 0.0, 0.2]);
        assert_eq!(read.mask.to_vec_f32().unwrap(), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);

        image::RgbImage::new(3, 2).save(&path).unwrap();
        assert_eq!(read_picture(&path).unwrap().mask.dims(), [1, 64, 64]);
    }

    #[test]
    fn what_is_no_picture_is_named() {
        let home = Home::new();
        std::fs::write(home.path("input/a.png"), b"hello").unwrap();
        let message = read_picture(&home.path("input/a.png")).err().unwrap().message;
        assert!(message.contains("a.png: not a PNG, JPEG or WebP picture"), "{message}");
        assert!(read_picture(&home.path("input/b.png")).is_err());
    }
}
