//! The chart of a measurement: rates by the number of lanes, and the parts of the machine.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use ringlift::tune::{Ceiling, PathReport, Rung};

use super::verdict::{mib, part_name};
use crate::cli::exit::{CommandError, Exit};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Draws the chart into an SVG file, which is replaced.
pub(super) fn draw(
    path: &Path,
    report: &PathReport,
    ceilings: &[Ceiling],
    sentence: &str,
) -> Result<(), CommandError> {
    let mut svg = String::new();
    draw_chart(&mut svg, report, ceilings, sentence).map_err(|error| {
        CommandError::Other(Exit::Failed, format!("could not draw {}: {error}", path.display()))
    })?;
    // Not by the backend, whose errors hide those of the kernel.
    fs::write(path, svg).map_err(|error| CommandError::io(format!("write {}", path.display()), error))
}

fn draw_chart(svg: &mut String, report: &PathReport, ceilings: &[Ceiling], sentence: &str) -> Drawn {
    let parts = if ceilings.is_empty() { 0 } else { HEAD + ceilings.len() as u32 * STEP };
    let canvas = SVGBackend::with_string(svg, (WIDTH, CHART + parts)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (above, below) = canvas.split_vertically(CHART);
    draw_rungs(&above, report, sentence)?;
    if !ceilings.is_empty() {
        draw_parts(&below, ceilings)?;
    }
    canvas.present()?;
    Ok(())
}

/// The scales of the upper chart, in pixels.
struct Scales {
    most_lanes: f64,
    most_mib: f64,
}

impl Scales {
    fn of(report: &PathReport) -> Scales {
        let most = |value: fn(&Rung) -> f64| report.rungs.iter().map(value).fold(1.0, f64::max);
        Scales {
            // The logarithm of 1 is 0, by which `x` would divide.
            most_lanes: most(|rung| f64::from(rung.lanes)).max(2.0),
            // An interval of a short measurement may be many times as wide as its rate.
            most_mib: most(|rung| mib(rung.rate.high.min(2.0 * rung.rate.mean))) * 1.05,
        }
    }

    /// Each doubling takes the same width.
    fn x(&self, lanes: u32) -> i32 {
        let share = f64::from(lanes).log2() / self.most_lanes.log2();
        (f64::from(LEFT) + share * f64::from(WIDTH - LEFT - RIGHT)) as i32
    }

    fn y(&self, bytes_per_second: f64) -> i32 {
        // An interval may end above the chart.
        let share = (mib(bytes_per_second) / self.most_mib).min(1.0);
        (f64::from(BOTTOM) - share * f64::from(BOTTOM - HEAD)) as i32
    }
}

fn draw_rungs(area: &Canvas<'_>, report: &PathReport, sentence: &str) -> Drawn {
    let scales = Scales::of(report);
    area.draw(&Text::new(sentence.to_owned(), (12, 14), ("sans-serif", 15)))?;
    let caption = "Rate in MiB/s by the number of lanes, each measurement with its 95 % interval; blue: recommended; line: means";
    area.draw(&Text::new(caption.to_owned(), (12, 36), ("sans-serif", 13)))?;
    draw_axes(area, report, &scales)?;
    draw_means(area, report, &scales)?;
    for (index, rung) in report.rungs.iter().enumerate() {
        let earlier = report.rungs[..index].iter().filter(|other| other.lanes == rung.lanes).count();
        // Beside each other, or the intervals of a comparison would hide each other.
        let (x, y) = (scales.x(rung.lanes) + earlier as i32 * APART, scales.y(rung.rate.mean));
        let (low, high) = (scales.y(rung.rate.low), scales.y(rung.rate.high));
        let colour = if rung.lanes == report.lanes { CHOSEN } else { OTHERS };
        area.draw(&PathElement::new([(x, low), (x, high)], colour.stroke_width(2)))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(x - 5, end), (x + 5, end)], colour.stroke_width(2)))?;
        }
        area.draw(&Circle::new((x, y), 4, colour.filled()))?;
    }
    Ok(())
}

/// Draws the mean of all measurements of each number of lanes as a line.
fn draw_means(area: &Canvas<'_>, report: &PathReport, scales: &Scales) -> Drawn {
    let mut rates: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    report.rungs.iter().for_each(|rung| rates.entry(rung.lanes).or_default().push(rung.rate.mean));
    let mean = |rates: &Vec<f64>| rates.iter().sum::<f64>() / rates.len() as f64;
    let points: Vec<(i32, i32)> =
        rates.iter().map(|(lanes, rates)| (scales.x(*lanes), scales.y(mean(rates)))).collect();
    area.draw(&PathElement::new(points, MEANS.stroke_width(1)))?;
    Ok(())
}

fn draw_axes(area: &Canvas<'_>, report: &PathReport, scales: &Scales) -> Drawn {
    let right = (WIDTH - RIGHT + 80) as i32;
    for part in 0..=4 {
        let value = scales.most_mib * f64::from(part) / 4.0;
        let y = scales.y(value * (1u64 << 20) as f64);
        area.draw(&PathElement::new([(LEFT as i32 - 20, y), (right, y)], GRID.stroke_width(1)))?;
        let label = if scales.most_mib < 20.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        area.draw(&Text::new(label, (LEFT as i32 - 26, y), anchored(HPos::Right)))?;
    }
    let mut numbers: Vec<u32> = report.rungs.iter().map(|rung| rung.lanes).collect();
    numbers.sort_unstable();
    numbers.dedup();
    area.draw(&Text::new("lanes".to_owned(), (right, BOTTOM as i32 + 16), anchored(HPos::Right)))?;
    for lanes in numbers {
        let label = lanes.to_string();
        area.draw(&Text::new(label, (scales.x(lanes), BOTTOM as i32 + 16), anchored(HPos::Center)))?;
    }
    Ok(())
}

fn draw_parts(area: &Canvas<'_>, ceilings: &[Ceiling]) -> Drawn {
    let most = ceilings.iter().map(|ceiling| ceiling.bytes_per_second).fold(1.0, f64::max);
    let left = PARTS_LEFT as i32;
    let scale = f64::from(WIDTH - PARTS_LEFT - PARTS_RIGHT) / most;
    area.draw(&Text::new("Rate of each part alone in MiB/s".to_owned(), (12, 14), ("sans-serif", 13)))?;
    for (index, ceiling) in ceilings.iter().enumerate() {
        let top = (HEAD as usize + index * STEP as usize) as i32 - 16;
        let end = left + (ceiling.bytes_per_second * scale) as i32;
        area.draw(&Rectangle::new([(left, top), (end, top + BAR)], OTHERS.filled()))?;
        let middle = top + BAR / 2;
        area.draw(&Text::new(part_name(ceiling.part), (left - 8, middle), anchored(HPos::Right)))?;
        let value = format!("{:.0}", mib(ceiling.bytes_per_second));
        area.draw(&Text::new(value, (end + 6, middle), anchored(HPos::Left)))?;
    }
    Ok(())
}

fn anchored(side: HPos) -> TextStyle<'static> {
    ("sans-serif", 13).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center))
}

const WIDTH: u32 = 960;
const CHART: u32 = 400;
const HEAD: u32 = 60;
const BOTTOM: u32 = 360;
const LEFT: u32 = 100;
const RIGHT: u32 = 110;
const PARTS_LEFT: u32 = 240;
const PARTS_RIGHT: u32 = 80;
const STEP: u32 = 24;
const BAR: i32 = 16;
/// The distance of two measurements of the same number.
const APART: i32 = 13;
const CHOSEN: RGBColor = RGBColor(0, 114, 178);
const OTHERS: RGBColor = RGBColor(150, 150, 150);
const MEANS: RGBColor = RGBColor(200, 170, 90);
const GRID: RGBColor = RGBColor(225, 225, 225);
