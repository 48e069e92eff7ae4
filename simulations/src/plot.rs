//! Plots, as SVG and PNG.

use std::path::Path;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A picture of curves.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Over it.
    pub title: String,
    /// Below and beside it, with units.
    pub axes: [String; 2],
    /// What it shows.
    pub curves: Vec<Curve>,
    /// Whether both axes count in powers of ten.
    pub log: bool,
}

const SIZE: (u32, u32) = (900, 540);
/// Told apart by most eyes (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

impl Plot {
    /// Writes `name.svg` and `name.png` into `dir`.
    ///
    /// # Errors
    /// If they cannot be written, in words.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), String> {
        register_font()?;
        let (svg, png) = (dir.join(format!("{name}.svg")), dir.join(format!("{name}.png")));
        self.draw(&SVGBackend::new(&svg, SIZE).into_drawing_area())?;
        self.draw(&BitMapBackend::new(&png, SIZE).into_drawing_area())
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, plotters::coord::Shift>) -> Result<(), String> {
        let failed = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&WHITE).map_err(failed)?;
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let most = |pick: fn(&(f64, f64)) -> f64| points().map(pick).fold(0.0, f64::max).max(1e-3);
        let least = |pick: fn(&(f64, f64)) -> f64| points().map(pick).filter(|v| *v > 0.0).fold(f64::MAX, f64::min);
        let mut builder = ChartBuilder::on(area);
        builder.caption(&self.title, ("sans-serif", 20)).margin(16).x_label_area_size(44).y_label_area_size(70);
        let (x, y) = (most(|p| p.0), most(|p| p.1) * 1.05);
        if self.log {
            let (x, y) = (least(|p| p.0)..x, least(|p| p.1) / 2.0..y * 2.0);
            self.fill(builder.build_cartesian_2d(x.log_scale(), y.log_scale()).map_err(failed)?).map_err(failed)?;
        } else {
            self.fill(builder.build_cartesian_2d(0.0..x, 0.0..y).map_err(failed)?).map_err(failed)?;
        }
        area.present().map_err(failed)
    }

    /// The mesh, the curves and their names.
    fn fill<'a, B, X, Y>(
        &self,
        mut chart: ChartContext<'a, B, Cartesian2d<X, Y>>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>
    where
        B: DrawingBackend + 'a,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart.configure_mesh().x_desc(&self.axes[0]).y_desc(&self.axes[1]).draw()?;
        for (index, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let points = if self.log { 4 } else { 0 };
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(points);
            chart
                .draw_series(line)?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        let mut labels = chart.configure_series_labels();
        labels.border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()
    }
}

/// The bitmap's letters come with the program: a server may have no fonts.
fn register_font() -> Result<(), String> {
    static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let done = *REGISTERED.get_or_init(|| {
        plotters::style::register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()).is_ok()
    });
    if done { Ok(()) } else { Err("the font cannot be used".into()) }
}

/// The part of all values that lies below each.
#[must_use]
pub fn distribution(name: &str, values: &[u64], unit: f64) -> Curve {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let count = sorted.len().max(1) as f64;
    let points = sorted.iter().enumerate().map(|(index, value)| (*value as f64 / unit, (index + 1) as f64 / count));
    Curve { name: name.into(), points: points.collect() }
}
