use std::path::Path;

use candle_core::{Device, Tensor};
use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

use super::*;
use crate::{CancelToken, ErrorKind};

fn options(resolution: usize) -> ConceptOptions {
    ConceptOptions { resolution, multiple: 8, ..Default::default() }
}

fn load(folder: &Path, options: &ConceptOptions) -> crate::Result<Concept> {
    Concept::load_folder(folder, options, &CancelToken::new())
}

/// Left half red, right half blue; the top row green.
fn picture(w: u32, h: u32) -> RgbImage {
    RgbImage::from_fn(w, h, |x, y| match (x < w / 2, y) {
        (_, 0) => Rgb([0, 255, 0]),
        (true, _) => Rgb([255, 0, 0]),
        (false, _) => Rgb([0, 0, 255]),
    })
}

fn at(item: &ConceptItem, y: usize, x: usize) -> [f32; 3] {
    let values =
        item.pixels.permute((1, 2, 0)).unwrap().contiguous().unwrap().get(y).unwrap().get(x).unwrap();
    values.to_vec1::<f32>().unwrap().try_into().unwrap()
}

const RED: [f32; 3] = [1.0, -1.0, -1.0];
const BLUE: [f32; 3] = [-1.0, -1.0, 1.0];
const GREEN: [f32; 3] = [-1.0, 1.0, -1.0];

#[test]
fn a_folder_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    picture(64, 64).save(d.join("b.png")).unwrap();
    picture(100, 64).save(d.join("a.webp")).unwrap();
    picture(48, 96).save_with_format(d.join("c.jpg"), ImageFormat::Jpeg).unwrap();
    picture(20, 90).save(d.join("tiny.png")).unwrap();
    // The extension says nothing: a PNG is found out from its bytes.
    std::fs::copy(d.join("b.png"), d.join("z.jpeg")).unwrap();
    std::fs::write(d.join("broken.png"), b"\x89PNG\r\n\x1a\nrest").unwrap();
    std::fs::write(d.join("film.mp4"), b"....ftyp").unwrap();
    std::fs::write(d.join("b.txt"), "\u{feff}a {} on\n a mat\n").unwrap();
    std::fs::write(d.join("c.txt"), "  ").unwrap();
    std::fs::write(d.join(".hidden.png"), "").unwrap();
    std::fs::create_dir(d.join("more")).unwrap();

    let c = load(d, &ConceptOptions { captions: CaptionSource::Sidecar, ..options(64) }).unwrap();
    assert_eq!(
        c.items.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
        ["a.webp", "b.png", "c.jpg", "z.jpeg"]
    );
    assert!(c.items.iter().all(|i| i.pixels.dims() == [3, 64, 64] && i.weight.is_none()));
    assert_eq!(
        c.items.iter().map(|i| i.caption.as_deref()).collect::<Vec<_>>(),
        [None, Some("a {} on a mat"), None, None]
    );
    assert_eq!(c.remarks, ["3 of 4 pictures have no .txt with a caption in it: templates are used"]);
    assert_eq!(c.problems.len(), 3, "{:?}", c.problems);
    assert!(c.problems[0].starts_with("broken.png: not a picture"), "{:?}", c.problems);
    assert!(c.problems[1].starts_with("film.mp4: not a PNG, JPEG or WebP"));
    assert!(c.problems[2].starts_with("tiny.png: 20x90 pixels"));
    assert_eq!(c.buckets(), [[0, 1, 2, 3]]);
    // At the training size already: not one bit is resampled.
    assert_eq!((at(&c.items[1], 0, 5), at(&c.items[1], 1, 31), at(&c.items[1], 1, 32)), (GREEN, RED, BLUE));

    let again = load(d, &ConceptOptions { captions: CaptionSource::Sidecar, ..options(64) }).unwrap();
    assert_eq!(again.fingerprint, c.fingerprint);
    assert_eq!(c.fingerprint.len(), 64);
    let plain = load(d, &options(64)).unwrap();
    assert_ne!(plain.fingerprint, c.fingerprint);
    assert!(plain.remarks.is_empty(), "nobody asked for captions: {:?}", plain.remarks);
    std::fs::write(d.join("b.txt"), "other").unwrap();
    assert_ne!(
        load(d, &ConceptOptions { captions: CaptionSource::Sidecar, ..options(64) }).unwrap().fingerprint,
        c.fingerprint
    );
}

#[test]
fn nothing_usable_is_an_error_that_names_all() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(&dir.path().join("gone"), &options(64)).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(load(dir.path(), &options(64)).unwrap_err().kind, ErrorKind::NotFound);
    std::fs::write(dir.path().join("a.png"), "x").unwrap();
    std::fs::write(dir.path().join("b.gif"), "GIF89a").unwrap();
    let error = load(dir.path(), &options(64)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert!(error.message.contains("a.png: ") && error.message.contains("b.gif: "), "{error}");
    for bad in [
        options(60),
        options(8),
        ConceptOptions { multiple: 12, ..options(64) },
        ConceptOptions { crop: Crop::Random { count: 0, seed: 0 }, ..options(64) },
    ] {
        assert_eq!(load(dir.path(), &bad).unwrap_err().kind, ErrorKind::InvalidInput, "{bad:?}");
    }
    let cancel = CancelToken::new();
    cancel.cancel();
    assert_eq!(
        Concept::load_folder(dir.path(), &options(64), &cancel).unwrap_err().kind,
        ErrorKind::Cancelled
    );
}

#[test]
fn crops_and_twins() {
    let dir = tempfile::tempdir().unwrap();
    picture(128, 64).save(dir.path().join("01-a_red thing.png")).unwrap();
    picture(64, 64).save(dir.path().join("02.png")).unwrap();
    let twins =
        load(dir.path(), &ConceptOptions { flip: true, captions: CaptionSource::FileName, ..options(64) })
            .unwrap();
    assert_eq!(twins.items.len(), 4);
    assert_eq!(twins.items[1].name, "01-a_red thing.png (mirrored)");
    assert_eq!(twins.items[1].caption.as_deref(), Some("a red thing"));
    assert_eq!(twins.items[2].caption, None);
    assert_eq!((at(&twins.items[2], 5, 0), at(&twins.items[3], 5, 0)), (RED, BLUE));

    assert_eq!(twins.items.iter().map(|i| i.mirrored).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(twins.remarks, ["1 of 2 pictures has no caption in the file name: templates are used"]);
    let single = twins.clone().without_twins();
    assert_eq!(
        single.items.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
        ["01-a_red thing.png", "02.png"]
    );
    assert_ne!(single.fingerprint, twins.fingerprint, "less is learned from");
    let same = single.clone().without_twins();
    assert!(same.fingerprint == single.fingerprint && !same.has_twins());

    let own = load(dir.path(), &ConceptOptions { crop: Crop::None, ..options(64) }).unwrap();
    assert_eq!(own.items.iter().map(ConceptItem::size).collect::<Vec<_>>(), [(40, 88), (64, 64)]);
    assert_eq!(own.buckets(), [[0], [1]]);
    // The usual multiple lets a square of the training size be.
    let usual = ConceptOptions { resolution: 96, crop: Crop::None, ..ConceptOptions::default() };
    assert_eq!(load(dir.path(), &usual).unwrap().items[1].size(), (96, 96));

    let random = ConceptOptions { crop: Crop::Random { count: 3, seed: 1 }, ..options(32) };
    let random = load(dir.path(), &random).unwrap();
    assert_eq!(random.items.len(), 6);
    assert_eq!(random.items[4].name, "02.png (crop 2)");
    assert!(random.items.iter().all(|i| i.size() == (32, 32)));
}

#[test]
fn transparency_is_white_and_may_weigh() {
    let dir = tempfile::tempdir().unwrap();
    let cut_out = RgbaImage::from_fn(64, 64, |x, _| match x {
        0..=15 => Rgba([0, 0, 0, 0]),
        16..=31 => Rgba([0, 0, 0, 51]),
        _ => Rgba([255, 0, 0, 255]),
    });
    cut_out.save(dir.path().join("a.png")).unwrap();
    RgbaImage::from_pixel(64, 64, Rgba([9, 9, 9, 255])).save(dir.path().join("b.png")).unwrap();
    let c = load(dir.path(), &ConceptOptions { alpha_as_weight: true, flip: true, ..options(64) }).unwrap();
    assert_eq!((at(&c.items[0], 3, 0), at(&c.items[0], 3, 40)), ([1.0; 3], RED));
    assert!((at(&c.items[0], 3, 20)[0] - 0.6).abs() < 1e-6);
    let row = |i: usize| c.items[i].weight.as_ref().unwrap().get(9).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!((row(0)[0], row(0)[20], row(0)[63]), (0.0, 0.2, 1.0));
    assert_eq!((row(1)[63], row(1)[0]), (0.0, 1.0));
    // All opaque: no weights.
    assert!(c.items[2].weight.is_none());
    assert!(load(dir.path(), &options(64)).unwrap().items[0].weight.is_none());
}

#[test]
fn exif_turns_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jpg");
    RgbImage::from_fn(64, 64, |x, _| if x < 32 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
        .save(&path)
        .unwrap();
    // An APP1 segment that says "rotate by 90 degrees clockwise" (6), put behind the JPEG's start.
    let tiff = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = std::fs::read(&path).unwrap();
    let mut segment = vec![0xff, 0xe1];
    segment.extend_from_slice(&(tiff.len() as u16 + 2).to_be_bytes());
    segment.extend_from_slice(tiff);
    bytes.splice(2..2, segment);
    std::fs::write(&path, bytes).unwrap();
    let c = load(dir.path(), &options(64)).unwrap();
    let (top, bottom) = (at(&c.items[0], 5, 32), at(&c.items[0], 58, 32));
    assert!(top[0] > 0.9 && top[2] < -0.9 && bottom[2] > 0.9, "{top:?} {bottom:?}");
}

#[test]
fn pictures_from_a_host() {
    let cancel = CancelToken::new();
    let values: Vec<f32> = (0..2 * 40 * 64 * 3).map(|i| (i % 11) as f32 / 10.0).collect();
    let images = Tensor::from_vec(values, (2, 40, 64, 3), &Device::Cpu).unwrap();
    let own = ConceptOptions { crop: Crop::None, multiple: 8, resolution: 56, ..Default::default() };
    let captions = ["one".to_owned(), " ".to_owned()];
    let masks = Tensor::full(0.25f32, (1, 40, 64), &Device::Cpu).unwrap();
    let c = Concept::from_images(&images, &captions, Some(&masks), &own, &cancel).unwrap();
    assert_eq!(c.items.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["image 1", "image 2"]);
    assert_eq!(c.items.iter().map(|i| i.caption.as_deref()).collect::<Vec<_>>(), [Some("one"), None]);
    assert_eq!(c.remarks, ["1 of 2 pictures has an empty caption: templates are used"]);
    let (h, w) = c.items[0].size();
    assert!(h * w <= 56 * 56 && h % 8 == 0 && w % 8 == 0);
    let weight = c.items[1].weight.as_ref().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(weight.iter().all(|v| (v - 0.25).abs() < 1e-6));

    // At size, nothing is rounded to 8 bits.
    let exact = Tensor::full(0.123_456f32, (1, 32, 32, 1), &Device::Cpu).unwrap();
    let c = Concept::from_images(&exact, &["all".to_owned()], None, &options(32), &cancel).unwrap();
    assert_eq!(at(&c.items[0], 3, 4), [0.123_456f32 * 2.0 - 1.0; 3]);

    let mut rgba = vec![0.0f32; 32 * 32 * 4];
    rgba[3] = 1.0;
    let rgba = Tensor::from_vec(rgba, (1, 32, 32, 4), &Device::Cpu).unwrap();
    let weighted = ConceptOptions { alpha_as_weight: true, ..options(32) };
    let c = Concept::from_images(&rgba, &[], None, &weighted, &cancel).unwrap();
    assert_eq!((at(&c.items[0], 0, 0), at(&c.items[0], 0, 1)), ([-1.0; 3], [1.0; 3]));
    assert_eq!(
        c.items[0].weight.as_ref().unwrap().get(0).unwrap().get(0).unwrap().to_scalar::<f32>().unwrap(),
        1.0
    );

    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let bad: [(Tensor, Vec<String>, Option<Tensor>); 5] = [
        (zeros(&[40, 40, 3]), vec![], None),
        (zeros(&[1, 40, 40, 2]), vec![], None),
        (zeros(&[3, 40, 40, 3]), vec![String::new(); 2], None),
        (zeros(&[1, 40, 40, 3]), vec![], Some(zeros(&[1, 40, 41]))),
        (Tensor::full(f32::NAN, (1, 40, 40, 3), &Device::Cpu).unwrap(), vec![], None),
    ];
    for (images, captions, masks) in bad {
        let error =
            Concept::from_images(&images, &captions, masks.as_ref(), &options(32), &cancel).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput, "{error}");
    }
    let error = Concept::from_images(&zeros(&[2, 8, 8, 3]), &[], None, &options(32), &cancel).unwrap_err();
    assert!(error.message.contains("image 2: 8x8"), "{error}");
}
