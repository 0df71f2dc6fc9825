//! A picture to draw on: filled areas, smooth lines, text.

use std::convert::Infallible;

use embedded_graphics::Pixel;
use embedded_graphics::mono_font::iso_8859_1::{FONT_7X14, FONT_9X15_BOLD, FONT_9X18_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Point, RgbColor, Size};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use image::{Rgb, RgbImage};
use vocable_host_sdk::abi::{NodeError, TensorBuf};

/// A colour, as in `0x1f5fbf`.
pub(crate) type Colour = u32;

/// Size and weight of letters.
#[derive(Clone, Copy)]
pub(crate) enum Letters {
    Small,
    Bold,
    Title,
}

impl Letters {
    fn font(self) -> &'static MonoFont<'static> {
        match self {
            Self::Small => &FONT_7X14,
            Self::Bold => &FONT_9X15_BOLD,
            Self::Title => &FONT_9X18_BOLD,
        }
    }

    /// Pixels that a letter takes.
    pub(crate) fn width(self) -> usize {
        self.font().character_size.width as usize
    }

    /// Pixels that a line takes.
    pub(crate) fn height(self) -> usize {
        self.font().character_size.height as usize
    }
}

/// Where a text stands in relation to its point.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    TopLeft,
    TopCentre,
    TopRight,
    /// At the right end, half of the height.
    Right,
}

/// A picture that is being drawn.
pub(crate) struct Canvas {
    pub(crate) picture: RgbImage,
}

fn rgb(colour: Colour) -> Rgb<u8> {
    let [_, r, g, b] = colour.to_be_bytes();
    Rgb([r, g, b])
}

impl Canvas {
    /// A canvas of one colour.
    pub(crate) fn new(width: u32, height: u32, background: Colour) -> Self {
        Self { picture: RgbImage::from_pixel(width, height, rgb(background)) }
    }

    /// Fills a rectangle, as far as it lies on the canvas.
    pub(crate) fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        let (right, bottom) = (self.picture.width() as usize, self.picture.height() as usize);
        for y in y..(y + height).min(bottom) {
            for x in x..(x + width).min(right) {
                self.picture.put_pixel(x as u32, y as u32, rgb(colour));
            }
        }
    }

    /// Draws a smooth line of that width through `points`.
    pub(crate) fn curve(&mut self, points: &[(f32, f32)], width: f32, colour: Colour) {
        let (columns, rows) = (self.picture.width() as usize, self.picture.height() as usize);
        let mut coverage = vec![0f32; columns * rows];
        let reach = width / 2.0 + 1.0;
        let span = |a: f32, b: f32, end: usize| {
            let first = (a.min(b) - reach).floor().max(0.0) as usize;
            first..((a.max(b) + reach).ceil().max(0.0) as usize).min(end)
        };
        for segment in points.windows(2) {
            let (a, b) = (segment[0], segment[1]);
            for y in span(a.1, b.1, rows) {
                for x in span(a.0, b.0, columns) {
                    let far = distance((x as f32 + 0.5, y as f32 + 0.5), a, b);
                    let covered = (width / 2.0 + 0.5 - far).clamp(0.0, 1.0);
                    let kept = &mut coverage[y * columns + x];
                    *kept = kept.max(covered);
                }
            }
        }
        let ink = rgb(colour).0.map(f32::from);
        for (pixel, covered) in self.picture.pixels_mut().zip(coverage) {
            for (channel, ink) in pixel.0.iter_mut().zip(ink) {
                *channel = (f32::from(*channel) * (1.0 - covered) + ink * covered).round() as u8;
            }
        }
    }

    /// Writes one line of text.
    pub(crate) fn text(
        &mut self,
        x: usize,
        y: usize,
        anchor: Anchor,
        letters: Letters,
        colour: Colour,
        text: &str,
    ) {
        let (alignment, baseline) = match anchor {
            Anchor::TopLeft => (Alignment::Left, Baseline::Top),
            Anchor::TopCentre => (Alignment::Center, Baseline::Top),
            Anchor::TopRight => (Alignment::Right, Baseline::Top),
            Anchor::Right => (Alignment::Right, Baseline::Middle),
        };
        let [r, g, b] = rgb(colour).0;
        let letters = MonoTextStyle::new(letters.font(), Rgb888::new(r, g, b));
        let style = TextStyleBuilder::new().alignment(alignment).baseline(baseline).build();
        // Drawing on this canvas cannot fail: its error is `Infallible`.
        let _ = Text::with_text_style(text, Point::new(x as i32, y as i32), letters, style).draw(self);
    }

    /// The picture as an IMAGE.
    pub(crate) fn into_image(self) -> Result<TensorBuf, NodeError> {
        let (width, height) = (self.picture.width() as usize, self.picture.height() as usize);
        let values = self.picture.into_raw().into_iter().map(|byte| f32::from(byte) / 255.0).collect();
        TensorBuf::from_vec_f32(&[1, height, width, 3], values)
    }
}

/// From a point to the segment between `a` and `b`.
fn distance(p: (f32, f32), a: (f32, f32), b: (f32, f32)) -> f32 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length2 = dx * dx + dy * dy;
    let along = if length2 > 0.0 { ((p.0 - a.0) * dx + (p.1 - a.1) * dy) / length2 } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    (p.0 - a.0 - along * dx).hypot(p.1 - a.1 - along * dy)
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.picture.width(), self.picture.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y))
                && let Some(pixel) = self.picture.get_pixel_mut_checked(x, y)
            {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_smooth_and_text_stays_on_the_canvas() {
        let mut canvas = Canvas::new(20, 10, 0xffffff);
        canvas.curve(&[(0.0, 5.0), (20.0, 5.0)], 2.0, 0x000000);
        assert_eq!(canvas.picture.get_pixel(10, 5).0, [0; 3]);
        assert_eq!(canvas.picture.get_pixel(10, 1).0, [255; 3]);
        canvas.curve(&[(-50.0, -3.0), (70.0, 13.0)], 1.0, 0xff0000);
        canvas.text(0, 0, Anchor::Right, Letters::Title, 0x000000, "a long text that does not fit");
        canvas.fill(15, 8, 100, 100, 0x00ff00);
        assert_eq!(canvas.picture.get_pixel(19, 9).0, [0, 255, 0]);
        assert_eq!(canvas.into_image().unwrap().dims(), [1, 10, 20, 3]);
    }
}
