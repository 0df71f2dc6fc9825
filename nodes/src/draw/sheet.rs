//! The contact sheet: rows of pictures, each row with a caption.

use image::imageops::{self, FilterType};
use image::{Rgb32FImage, RgbImage};
use vocable_host_sdk::abi::{NodeError, TensorBuf};

use super::canvas::{Anchor, Canvas, Colour, Letters};
use crate::convert::ImageShape;

const PAPER: Colour = 0xf7_f7f5;
const INK: Colour = 0x27_2d36;
const MARGIN: usize = 20;
const GAP: usize = 8;
const BELOW_CAPTION: usize = 6;
const BETWEEN_ROWS: usize = 18;
/// Larger sheets are refused.
const MOST_PIXELS: u64 = 1 << 26;

/// One row: a caption and a batch of pictures.
pub(crate) struct Row<'a> {
    pub(crate) caption: String,
    pub(crate) name: &'a str,
    pub(crate) images: &'a TensorBuf,
}

/// How the sheet looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SheetOptions {
    /// The longer side of a picture on the sheet.
    pub(crate) size: usize,
    /// Pictures side by side; a longer row is broken.
    pub(crate) columns: usize,
    /// Enlarged pictures show their pixels, at a whole factor.
    pub(crate) nearest: bool,
}

/// Draws the rows one below the other.
pub(crate) fn contact_sheet(rows: &[Row<'_>], options: SheetOptions) -> Result<Canvas, NodeError> {
    let rows = rows
        .iter()
        .map(|row| Ok((&row.caption, tiles(row, options)?)))
        .collect::<Result<Vec<_>, NodeError>>()?;
    let columns =
        rows.iter().map(|(_, tiles)| tiles.len()).max().unwrap_or(0).clamp(1, options.columns.max(1));
    let cell = rows.iter().flat_map(|(_, tiles)| tiles).map(RgbImage::width).max().unwrap_or(1) as usize;
    let caption_width =
        rows.iter().map(|(caption, _)| caption.chars().count() * Letters::Bold.width()).max().unwrap_or(0);
    let width = 2 * MARGIN + (columns * (cell + GAP) - GAP).max(caption_width.min(1200));

    let row_height =
        |tiles: &[RgbImage]| tiles.iter().map(RgbImage::height).max().unwrap_or(1) as usize + GAP;
    let caption_height =
        |caption: &str| if caption.is_empty() { 0 } else { Letters::Bold.height() + BELOW_CAPTION };
    let heights = rows.iter().map(|(caption, tiles)| {
        caption_height(caption) + tiles.chunks(columns).map(row_height).sum::<usize>() - GAP + BETWEEN_ROWS
    });
    let height = 2 * MARGIN + heights.sum::<usize>() - BETWEEN_ROWS;
    refuse_large(width as u64, height as u64)?;

    let mut canvas = Canvas::new(width as u32, height as u32, PAPER);
    let mut y = MARGIN;
    for (caption, tiles) in &rows {
        canvas.text(MARGIN, y, Anchor::TopLeft, Letters::Bold, INK, caption);
        y += caption_height(caption);
        for line in tiles.chunks(columns) {
            for (column, tile) in line.iter().enumerate() {
                let x = MARGIN + column * (cell + GAP) + (cell - tile.width() as usize) / 2;
                imageops::replace(&mut canvas.picture, tile, x as i64, y as i64);
            }
            y += row_height(line);
        }
        y = y - GAP + BETWEEN_ROWS;
    }
    Ok(canvas)
}

fn refuse_large(width: u64, height: u64) -> Result<(), NodeError> {
    if width.saturating_mul(height) <= MOST_PIXELS {
        return Ok(());
    }
    Err(NodeError::invalid_input(format!("a contact sheet of {width}x{height} pixels and more is too large"))
        .help("Choose a smaller `picture_size`, or fewer pictures."))
}

fn resized(side: u32, factor: f64) -> u32 {
    ((f64::from(side) * factor).round() as u32).max(1)
}

/// The pictures of a row in the size that they have on the sheet.
fn tiles(row: &Row<'_>, options: SheetOptions) -> Result<Vec<RgbImage>, NodeError> {
    let shape = ImageShape::of(row.name, row.images)?;
    let (width, height) = (shape.width as u32, shape.height as u32);
    let longer = shape.width.max(shape.height);
    let factor = match options.size as f64 / longer as f64 {
        enlarged if enlarged >= 1.0 && options.nearest => enlarged.floor(),
        factor => factor,
    };
    let (tile_width, tile_height) = (resized(width, factor), resized(height, factor));
    refuse_large(u64::from(tile_width), u64::from(tile_height) * shape.batch as u64)?;
    let filter = if factor > 1.0 && options.nearest { FilterType::Nearest } else { FilterType::CatmullRom };

    let values = row.images.to_vec_f32()?;
    let tile = |picture: &[f32]| {
        let rgb = picture.chunks_exact(shape.channels).flat_map(|pixel| match pixel {
            [grey] => [*grey; 3],
            [r, g, b, ..] => [*r, *g, *b],
            _ => [0.0; 3],
        });
        let picture = Rgb32FImage::from_vec(width, height, rgb.collect())
            .ok_or_else(|| NodeError::internal("a picture does not have the size that its shape says"))?;
        let picture =
            if factor == 1.0 { picture } else { imageops::resize(&picture, tile_width, tile_height, filter) };
        let bytes =
            picture.as_raw().iter().map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
        RgbImage::from_raw(picture.width(), picture.height(), bytes)
            .ok_or_else(|| NodeError::internal("a picture does not have the size that its shape says"))
    };
    values.chunks_exact(shape.height * shape.width * shape.channels).map(tile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(batch: usize, height: usize, width: usize) -> TensorBuf {
        TensorBuf::from_vec_f32(&[batch, height, width, 3], vec![0.5; batch * height * width * 3]).unwrap()
    }

    fn sheet(row: &TensorBuf, options: SheetOptions) -> Result<RgbImage, NodeError> {
        let row = Row { caption: "after".to_string(), name: "after", images: row };
        Ok(contact_sheet(&[row], options)?.picture)
    }

    #[test]
    fn small_pictures_are_enlarged_by_a_whole_factor() {
        let options = SheetOptions { size: 100, columns: 4, nearest: true };
        let picture = sheet(&images(2, 24, 48), options).unwrap();
        // Two pictures of 96 x 48.
        assert_eq!(picture.width(), (2 * MARGIN + 2 * 96 + GAP) as u32);
        assert_eq!(picture.height(), (2 * MARGIN + 15 + BELOW_CAPTION + 48) as u32);
        let smooth = sheet(&images(2, 24, 48), SheetOptions { nearest: false, ..options }).unwrap();
        assert_eq!(smooth.width(), (2 * MARGIN + 2 * 100 + GAP) as u32);
        // Large ones are made smaller.
        assert_eq!(sheet(&images(1, 300, 200), options).unwrap().width(), (2 * MARGIN + 67) as u32);
    }

    #[test]
    fn long_rows_are_broken_and_huge_sheets_refused() {
        let options = SheetOptions { size: 16, columns: 3, nearest: true };
        let picture = sheet(&images(7, 16, 16), options).unwrap();
        assert_eq!(picture.height(), (2 * MARGIN + 15 + BELOW_CAPTION + 3 * 16 + 2 * GAP) as u32);
        let huge = SheetOptions { size: 20_000, ..options };
        assert!(sheet(&images(1, 8, 8), huge).is_err());
    }
}
