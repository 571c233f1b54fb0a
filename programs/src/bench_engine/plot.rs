//! Charts as SVG and PNG, with a font of our own: a machine without fonts draws the same.

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A subset of DejaVu Sans; see the README beside it.
const FONT: &[u8] = include_bytes!("../../../assets/fonts/DejaVuSans-subset.ttf");
/// The name that the font is registered under. In the SVG it lets a viewer take its own.
const FONT_NAME: &str = "sans-serif";

const WIDTH: u32 = 960;
const CHART_HEIGHT: u32 = 380;
/// Pixels of the PNG for one unit of the SVG.
const PNG_SCALE: u32 = 2;

/// Colours that those who see few can tell apart (Okabe, Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];
const TEXT: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// A chart; those of a figure stand below each other.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub title: String,
    pub x_label: &'static str,
    pub y_label: &'static str,
    /// Whether the points are marked.
    pub markers: bool,
    /// Whether each line is narrower than those before it, so that one that lies under another is seen beside it.
    pub nested: bool,
    pub series: Vec<Series>,
    /// Text beside points.
    pub notes: Vec<(f64, f64, String)>,
}

/// A line of a chart, in the order of its points.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// The charts, with what they are about above them, as an SVG document and as a PNG image.
///
/// # Errors
/// Charts that cannot be drawn.
pub(super) fn render(caption: &[String], charts: &[Chart]) -> Result<(String, Vec<u8>)> {
    plotters::style::register_font(FONT_NAME, FontStyle::Normal, FONT)
        .map_err(|_| anyhow!("the bundled font cannot be read"))?;
    let height = caption_height(caption) + CHART_HEIGHT * charts.len() as u32;
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area(), caption, charts, 1)?;

    let (width, height) = (WIDTH * PNG_SCALE, height * PNG_SCALE);
    let mut pixels = vec![0; (width * height * 3) as usize];
    draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), caption, charts, PNG_SCALE)?;
    let mut image = Vec::new();
    let mut encoder = png::Encoder::new(&mut image, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().context("cannot encode the PNG")?;
    writer.write_image_data(&pixels).and_then(|()| writer.finish()).context("cannot encode the PNG")?;
    Ok((svg, image))
}

/// Height of a line of the caption.
const CAPTION_LINE: u32 = 20;

fn caption_height(caption: &[String]) -> u32 {
    CAPTION_LINE * caption.len() as u32 + 8
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    caption: &[String],
    charts: &[Chart],
    scale: u32,
) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("cannot draw a chart: {error}");
    area.fill(&WHITE).map_err(failed)?;
    let (head, below) = area.split_vertically((caption_height(caption) * scale) as i32);
    for (number, line) in caption.iter().enumerate() {
        let place = ((20 * scale) as i32, ((8 + CAPTION_LINE * number as u32) * scale) as i32);
        head.draw(&Text::new(fitting(&head, line, scale).map_err(failed)?, place, text_style(13, scale)))
            .map_err(failed)?;
    }
    for (part, chart) in below.split_evenly((charts.len(), 1)).iter().zip(charts) {
        let part = part.margin(12 * scale, 8 * scale, 12 * scale, 28 * scale);
        let below = draw_head(&part, chart, scale).map_err(failed)?;
        draw_chart(&part.split_vertically(below as i32).1, chart, scale).map_err(failed)?;
    }
    area.present().map_err(failed)
}

/// A line as it fits into the picture's width.
fn fitting<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    line: &str,
    scale: u32,
) -> Result<String, DrawingAreaErrorKind<B::ErrorType>> {
    let style = text_style(13, scale);
    let mut line = line.to_owned();
    while area.estimate_text_size(&line, &style)?.0 > (WIDTH - 40) * scale {
        line.pop();
        line.pop();
        line.push('…');
    }
    Ok(line)
}

fn text_style(size: u32, scale: u32) -> TextStyle<'static> {
    TextStyle::from((FONT_NAME, (size * scale) as i32)).color(&TEXT)
}

/// Title and legend, above the chart, in as many lines as they need; returns their height.
fn draw_head<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    chart: &Chart,
    scale: u32,
) -> Result<u32, DrawingAreaErrorKind<B::ErrorType>> {
    let (title, entry) = (text_style(17, scale), text_style(13, scale));
    let (left, line, swatch, gap) = (8 * scale, 22 * scale, 22 * scale, 18 * scale);
    let (width, _) = area.dim_in_pixel();
    area.draw(&Text::new(chart.title.clone(), (left as i32, 0), title.clone()))?;
    let mut x = left + area.estimate_text_size(&chart.title, &title)?.0 + 2 * gap;
    let mut y = 0;
    for (series, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
        let text_width = area.estimate_text_size(&series.name, &entry)?.0;
        if x + swatch + text_width > width {
            (x, y) = (left, y + line);
        }
        let middle = (y + 10 * scale) as i32;
        let ends = vec![(x as i32, middle), ((x + swatch - 5 * scale) as i32, middle)];
        area.draw(&PathElement::new(ends, colour.stroke_width(3 * scale)))?;
        area.draw(&Text::new(series.name.clone(), ((x + swatch) as i32, y as i32 + 2 * scale as i32), entry.clone()))?;
        x += swatch + text_width + gap;
    }
    Ok(y + line + 6 * scale)
}

fn draw_chart<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    chart: &Chart,
    scale: u32,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let points = || chart.series.iter().flat_map(|series| series.points.iter().copied());
    // Lines start at zero on both axes, and the highest point, with its note, is clear of the frame.
    let (x_end, y_end) = (end(points().map(|point| point.0)) * 1.05, end(points().map(|point| point.1)) * 1.15);
    let mut context = ChartBuilder::on(area)
        .x_label_area_size(42 * scale)
        .y_label_area_size(68 * scale)
        .build_cartesian_2d(0.0..x_end, 0.0..y_end)?;
    context
        .configure_mesh()
        .x_desc(chart.x_label)
        .y_desc(chart.y_label)
        .axis_desc_style(text_style(14, scale))
        .label_style(text_style(13, scale))
        .x_label_formatter(&|value| tick(*value, x_end))
        .y_label_formatter(&|value| tick(*value, y_end))
        .x_labels(10)
        .y_labels(7)
        .bold_line_style(GRID.stroke_width(scale))
        .light_line_style(TRANSPARENT)
        .axis_style(TEXT.stroke_width(scale))
        .draw()?;
    for (place, (series, colour)) in chart.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let wider = if chart.nested { 2 * (chart.series.len() - 1 - place) as u32 } else { 0 };
        // Piece by piece: where a thick line turns back on itself, its bitmap has holes.
        let piece = |pair: &[(f64, f64)]| PathElement::new(pair.to_vec(), colour.stroke_width((2 + wider) * scale));
        context.draw_series(series.points.windows(2).map(piece))?;
        if chart.markers {
            let marker = |&point: &(f64, f64)| Circle::new(point, (4 + wider) * scale, colour.filled());
            context.draw_series(series.points.iter().map(marker))?;
        }
    }
    for (x, y, note) in &chart.notes {
        // Beside the frame a centred note would be cut off.
        let side = match x / x_end {
            share if share > 0.85 => HPos::Right,
            share if share < 0.15 => HPos::Left,
            _ => HPos::Center,
        };
        let style = text_style(12, scale).pos(Pos::new(side, VPos::Bottom));
        // Clear of the widest marker.
        let above = -(if chart.nested { 12 } else { 9 }) * scale as i32;
        context
            .draw_series(std::iter::once(EmptyElement::at((*x, *y)) + Text::new(note.clone(), (0, above), style)))?;
    }
    Ok(())
}

/// The largest of `values`, or 1 where an axis to that would be empty.
fn end(values: impl Iterator<Item = f64>) -> f64 {
    let end = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if end > 0.0 { end } else { 1.0 }
}

/// A tick of an axis that ends at `end`, with no more decimals than ticks there need.
fn tick(value: f64, end: f64) -> String {
    let decimals = match end {
        _ if end >= 20.0 => 0,
        _ if end >= 2.0 => 1,
        _ if end >= 0.2 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "Title".to_owned(),
            x_label: "across (s)",
            y_label: "up (ms)",
            markers: true,
            nested: false,
            notes: points.iter().map(|&(x, y)| (x, y, "note".to_owned())).collect(),
            series: vec![Series { name: "one line".to_owned(), points }],
        }
    }

    fn decode(image: &[u8]) -> (png::OutputInfo, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(image)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info, pixels)
    }

    #[test]
    fn both_formats_show_lines_and_text() {
        let caption = ["an engine".to_owned(), "x".repeat(1000)];
        let (svg, image) = render(&caption, &[chart(vec![(1.0, 2.0), (3.0, 5.0)]), chart(vec![(1.0, 1.0)])]).unwrap();
        for part in ["<svg", "an engine", "xxx…", "Title", "across (s)", "up (ms)", "one line", "note", "</svg>"] {
            assert!(svg.contains(part), "no {part}");
        }
        let (info, pixels) = decode(&image);
        assert_eq!((info.width, info.height), (WIDTH * PNG_SCALE, (48 + 2 * CHART_HEIGHT) * PNG_SCALE));
        let is_blue = |pixel: &[u8]| pixel == [COLOURS[0].0, COLOURS[0].1, COLOURS[0].2];
        assert!(pixels.chunks_exact(3).filter(|pixel| is_blue(pixel)).count() > 1000);
        // The caption stands in the upper left corner, where nothing else is drawn.
        let row = (info.width * 3) as usize;
        let corner = pixels.chunks_exact(row).take(60).map(|row| &row[..3 * 200]);
        let dark = corner.flat_map(|row| row.chunks_exact(3)).filter(|pixel| pixel[0] < 128).count();
        assert!(dark > 100, "{dark}");
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(1e-9, 1e9)]] {
            let (_, image) = render(&[], &[chart(points)]).unwrap();
            decode(&image);
        }
    }

    #[test]
    fn equal_lines_are_both_seen() {
        let line = |name: &str| Series { name: name.to_owned(), points: vec![(1.0, 2.0), (3.0, 5.0)] };
        let nested = Chart { nested: true, series: vec![line("p99"), line("p90")], ..chart(Vec::new()) };
        let (_, pixels) = decode(&render(&[], &[nested]).unwrap().1);
        // More of each than its swatch in the legend has.
        for colour in &COLOURS[..2] {
            let count = pixels.chunks_exact(3).filter(|pixel| *pixel == [colour.0, colour.1, colour.2]).count();
            assert!(count > 2000, "{count}");
        }
    }

    #[test]
    fn ticks_have_no_more_decimals_than_their_axis_needs() {
        assert_eq!(
            [tick(10.0, 25.0), tick(1.5, 5.0), tick(0.25, 1.0), tick(0.001, 0.01)],
            ["10", "1.5", "0.25", "0.001"]
        );
    }
}
