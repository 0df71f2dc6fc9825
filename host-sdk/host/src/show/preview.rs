//! The newest preview as a PNG file, always whole: written beside, then renamed.

use std::fs::File;
use std::io::{BufWriter, Error};
use std::path::Path;

use vocable_host_sdk::abi::PreviewImage;

pub(super) fn write(path: &Path, image: &PreviewImage) -> Result<(), Error> {
    let beside = path.with_extension("png.part");
    let mut encoder =
        png::Encoder::new(BufWriter::new(File::create(&beside)?), image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.rgb())?;
    writer.finish()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("preview.png");
        for (width, height) in [(2, 1), (1, 3)] {
            let rgb = vec![7; (width * height * 3) as usize];
            write(&path, &PreviewImage::new(width, height, rgb).unwrap()).unwrap();
        }
        let reader =
            png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (1, 3));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
