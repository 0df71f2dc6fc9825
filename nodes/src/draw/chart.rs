//! The loss plot: what each step lost, faint, and its smoothed course.

use super::canvas::{Anchor, Canvas, Colour, Letters};

const WIDTH: usize = 800;
const HEIGHT: usize = 480;
const LEFT: usize = 72;
const RIGHT: usize = 28;
const TOP: usize = 64;
const BOTTOM: usize = 52;

const PAPER: Colour = 0xff_ffff;
const GRID: Colour = 0xe7_eaef;
const AXIS: Colour = 0x9a_a3b0;
const INK: Colour = 0x27_2d36;
const FAINT_INK: Colour = 0x5b_6573;
const RAW: Colour = 0xb9_d0f2;
const SMOOTH: Colour = 0x1d_5fc4;

/// Draws `losses`, one for each step. Numbers that are not finite leave a gap.
pub(crate) fn loss_chart(losses: &[f64]) -> Canvas {
    let mut canvas = Canvas::new(WIDTH as u32, HEIGHT as u32, PAPER);
    canvas.text(LEFT, 16, Anchor::TopLeft, Letters::Title, INK, "Training loss");
    let known: Vec<f64> = losses.iter().copied().filter(|loss| loss.is_finite()).collect();
    if known.is_empty() {
        canvas.text(
            WIDTH / 2,
            HEIGHT / 2,
            Anchor::TopCentre,
            Letters::Small,
            FAINT_INK,
            "no finite losses to draw",
        );
        return canvas;
    }

    let scale = Scale::new(&known, losses.len());
    axes(&mut canvas, &scale);
    for run in losses.iter().copied().enumerate().collect::<Vec<_>>().split(|(_, loss)| !loss.is_finite()) {
        curve(&mut canvas, &scale, run, 1.2, RAW);
    }
    let smooth = smoothed(losses);
    curve(&mut canvas, &scale, &smooth, 2.4, SMOOTH);
    legend(&mut canvas, smooth.last().map_or(f64::NAN, |(_, loss)| *loss));
    canvas
}

/// From steps and losses to pixels.
struct Scale {
    low: f64,
    high: f64,
    tick: f64,
    steps: usize,
}

impl Scale {
    /// All but the most extreme losses fit: one step of very small noise must not press the rest together.
    fn new(known: &[f64], steps: usize) -> Self {
        let mut sorted = known.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted[(part * (sorted.len() - 1) as f64).round() as usize];
        let (low, high) = (at(0.005), at(0.995));
        let margin = if high > low { 0.06 * (high - low) } else { 0.5 * high.abs().max(1e-6) };
        let (low, high) = (if low >= 0.0 { (low - margin).max(0.0) } else { low - margin }, high + margin);
        Self { low, high, tick: nice((high - low) / 5.0), steps }
    }

    fn x(&self, step: f64) -> f32 {
        let last = self.steps.saturating_sub(1).max(1) as f64;
        LEFT as f32 + (step / last) as f32 * (WIDTH - LEFT - RIGHT) as f32
    }

    fn y(&self, loss: f64) -> f32 {
        let part = ((loss - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (HEIGHT - BOTTOM) as f32 - part as f32 * (HEIGHT - TOP - BOTTOM) as f32
    }
}

/// The smallest of 1, 2, 5, 10, 20, … (and their tenths) that is not below `value`.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|nice| *nice >= value * 0.999)
        .unwrap_or(10.0 * power)
}

fn axes(canvas: &mut Canvas, scale: &Scale) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let digits = (-scale.tick.log10().floor()).clamp(0.0, 12.0) as usize;
    let first = (scale.low / scale.tick).ceil() * scale.tick;
    let ticks = (0..20).map(|index| first + f64::from(index) * scale.tick);
    for value in ticks.take_while(|value| *value <= scale.high) {
        let y = scale.y(value).round() as usize;
        canvas.fill(LEFT, y, right - LEFT, 1, GRID);
        canvas.text(LEFT - 8, y, Anchor::Right, Letters::Small, FAINT_INK, &format!("{value:.digits$}"));
    }
    let stride = nice(scale.steps as f64 / 8.0).max(1.0) as usize;
    for step in (0..scale.steps).step_by(stride) {
        let x = scale.x(step as f64).round() as usize;
        canvas.fill(x, TOP, 1, bottom - TOP, GRID);
        canvas.fill(x, bottom, 1, 5, AXIS);
        canvas.text(x, bottom + 8, Anchor::TopCentre, Letters::Small, FAINT_INK, &step.to_string());
    }
    canvas.fill(LEFT, TOP, 1, bottom - TOP, AXIS);
    canvas.fill(LEFT, bottom, right - LEFT + 1, 1, AXIS);
    canvas.text(LEFT, TOP - 20, Anchor::TopLeft, Letters::Small, FAINT_INK, "mean squared error");
    canvas.text(right, bottom + 26, Anchor::TopRight, Letters::Small, FAINT_INK, "step");
}

fn legend(canvas: &mut Canvas, last: f64) {
    let smooth = format!("smoothed, now {last:.4}");
    let mut x = WIDTH - RIGHT;
    for (text, colour, thickness) in [(smooth.as_str(), SMOOTH, 3), ("each step", RAW, 2)] {
        canvas.text(x, 20, Anchor::TopRight, Letters::Small, INK, text);
        x -= text.chars().count() * Letters::Small.width() + 30;
        canvas.fill(x, 26, 22, thickness, colour);
        x -= 22;
    }
}

fn curve(canvas: &mut Canvas, scale: &Scale, run: &[(usize, f64)], width: f32, colour: Colour) {
    let mut points: Vec<_> = run.iter().map(|(step, loss)| (scale.x(*step as f64), scale.y(*loss))).collect();
    if let [only] = points[..] {
        // A dot.
        points = vec![(only.0 - 0.5, only.1), (only.0 + 0.5, only.1)];
    }
    canvas.curve(&points, width, colour);
}

/// The mean of the finite losses around each step, weighted by nearness: a triangle whose half is a twelfth of the run.
fn smoothed(losses: &[f64]) -> Vec<(usize, f64)> {
    let reach = (losses.len() / 12).max(2);
    let around = |step: usize| {
        let mut sum = (0.0, 0.0);
        for (other, loss) in
            losses.iter().enumerate().take(step + reach).skip((step + 1).saturating_sub(reach))
        {
            if loss.is_finite() {
                let weight = (reach - other.abs_diff(step)) as f64;
                sum = (sum.0 + weight * loss, sum.1 + weight);
            }
        }
        (sum.1 > 0.0).then(|| (step, sum.0 / sum.1))
    };
    // More points than pixels would show nothing more.
    let stride = losses.len().div_ceil(WIDTH);
    let last = losses.len().saturating_sub(1);
    (0..losses.len()).filter(|step| step % stride == 0 || *step == last).filter_map(around).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
        close(nice(0.013), 0.02);
        close(nice(0.05), 0.05);
        close(nice(62.5), 100.0);
        close(nice(1.0), 1.0);
    }

    #[test]
    fn smoothing_keeps_a_constant_and_leaves_gaps_out() {
        let mut losses = vec![2.0; 100];
        losses[7] = f64::NAN;
        assert!(smoothed(&losses).iter().all(|(_, loss)| (loss - 2.0).abs() < 1e-12));
        assert_eq!(smoothed(&losses).len(), 100);
        assert_eq!(smoothed(&vec![1.0; 5000]).last().unwrap().0, 4999);
    }

    #[test]
    fn every_list_of_numbers_can_be_drawn() {
        let nan = f64::NAN;
        let lists: [&[f64]; 8] = [
            &[],
            &[nan],
            &[0.1],
            &[0.0, 0.0],
            &[1.0, nan, 2.0],
            &[f64::MAX, 1.0],
            &[-1.0, 5.0],
            &[1e-30, 2e-30],
        ];
        for losses in lists {
            let canvas = loss_chart(losses);
            assert_eq!((canvas.picture.width(), canvas.picture.height()), (800, 480), "{losses:?}");
        }
    }
}
