//! Contact sheets: rows of pictures, one group after another.

use std::path::Path;

use candle_core::Tensor;
use image::{Rgb, RgbImage};

use crate::judge::Result;

const GAP: u32 = 4;

/// Save groups of pictures `[B, 3, H, W]` in −1..1, `columns` to a row; a new group begins a new row.
pub(crate) fn save(path: &Path, groups: &[&Tensor], columns: usize) -> Result<()> {
    let (_, _, height, width) = groups.first().ok_or("a sheet of nothing")?.dims4()?;
    let (height, width) = (height as u32, width as u32);
    let rows: usize = groups
        .iter()
        .map(|group| group.dim(0).map(|n| n.div_ceil(columns)))
        .sum::<candle_core::Result<usize>>()?;
    let mut sheet = RgbImage::from_pixel(
        columns as u32 * (width + GAP) + GAP,
        rows as u32 * (height + GAP) + GAP,
        Rgb([255, 255, 255]),
    );
    let mut row = 0;
    for group in groups {
        let count = group.dim(0)?;
        for i in 0..count {
            let pixels: Vec<Vec<Vec<f32>>> = group.get(i)?.to_vec3()?;
            let (left, top) = (
                (i % columns) as u32 * (width + GAP) + GAP,
                (row + i / columns) as u32 * (height + GAP) + GAP,
            );
            for y in 0..height {
                for x in 0..width {
                    let value = |c: usize| {
                        ((pixels[c][y as usize][x as usize] + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
                    };
                    sheet.put_pixel(left + x, top + y, Rgb([value(0), value(1), value(2)]));
                }
            }
        }
        row += count.div_ceil(columns);
    }
    sheet.save(path)?;
    Ok(())
}
