//! Bars as SVG, written by hand: one picture a workload and theme.

use std::fmt::Write;

use crate::systems::Kind;
use crate::table::{Bar, Spread, short};
use crate::workload::{Figure, Workload};

pub(crate) struct Theme {
    pub(crate) name: &'static str,
    paper: &'static str,
    ink: &'static str,
    faint: &'static str,
    grid: &'static str,
    ours: &'static str,
    framework: &'static str,
    transport: &'static str,
    limit: &'static str,
}

pub(crate) const LIGHT: Theme = Theme {
    name: "light",
    paper: "#ffffff",
    ink: "#1f2328",
    faint: "#59636e",
    grid: "#d1d9e0",
    ours: "#0969da",
    framework: "#818b98",
    transport: "#c8d1da",
    limit: "none",
};

pub(crate) const DARK: Theme = Theme {
    name: "dark",
    paper: "#0d1117",
    ink: "#f0f6fc",
    faint: "#9198a1",
    grid: "#3d444d",
    ours: "#4493f8",
    framework: "#7d8590",
    transport: "#3d444d",
    limit: "none",
};

const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const WIDTH: f64 = 760.0;
/// Where bars begin and where the longest ends; right of it is room for its figure.
const LEFT: f64 = 104.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 72.0;
const STEP: f64 = 26.0;
const THICK: f64 = 16.0;

/// Figures that differ by more than this do not stand on one linear scale.
const FAR: f64 = 20.0;

/// Leaves a limit out that is far from everything that it could bound: the picture would be one of that limit. The table has it.
fn comparable(bars: &[Bar]) -> Vec<&Bar> {
    let others = || bars.iter().filter(|bar| bar.kind != Kind::Limit).map(|bar| bar.spread.median);
    let (low, high) = (others().fold(f64::INFINITY, f64::min), others().fold(0.0, f64::max));
    let near = |bar: &&Bar| {
        let median = bar.spread.median;
        bar.kind != Kind::Limit || high == 0.0 || (median * FAR >= low && median <= high * FAR)
    };
    bars.iter().filter(near).collect()
}

/// From a value to its place.
struct Scale {
    low: f64,
    high: f64,
    /// Where the largest figure is so much more than the smallest that this would be a line.
    log: bool,
}

impl Scale {
    fn new(bars: &[&Bar]) -> Self {
        let high = bars.iter().map(|bar| bar.spread.high).fold(f64::MIN_POSITIVE, f64::max);
        let low = bars.iter().map(|bar| bar.spread.low).fold(high, f64::min).max(high / 1e9);
        let log = high / low > FAR;
        // Half of the smallest, so that its bar has a length too.
        Self { low: if log { low / 2.0 } else { 0.0 }, high, log }
    }

    fn x(&self, value: f64) -> f64 {
        let part = if self.log { (value.max(self.low) / self.low).ln() / (self.high / self.low).ln() } else { value / self.high };
        LEFT + part * (RIGHT - LEFT)
    }

    /// Round values within the scale.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            // Powers of ten alone would be one tick, or none, where there are less than two decades.
            let digits: &[f64] = if self.high / self.low < 100.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            let ticks = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
            return ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect();
        }
        let rough = self.high / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.high).collect()
    }
}

/// The picture of a workload, or nothing if nobody has a figure.
pub(crate) fn svg(workload: Workload, bars: &[Bar], theme: &Theme) -> Option<String> {
    if bars.is_empty() {
        return None;
    }
    let bars = comparable(bars);
    let scale = Scale::new(&bars);
    let bottom = TOP + STEP * bars.len() as f64;
    let height = bottom + 58.0;
    let Theme { paper, ink, faint, grid, .. } = theme;
    let title = workload.title();
    let unit = match workload.figure() {
        Figure::Micros => "microseconds a call, the median",
        Figure::Rate if workload == Workload::W5 => "items a second",
        Figure::Rate => "calls a second",
        Figure::Throughput => "MiB a second in each direction",
        Figure::Bytes => "bytes at the server, of each system's own kind of session",
    };
    let better = if workload.figure().less_is_better() { "less is better" } else { "more is better" };
    let form = if scale.log { ", logarithmic scale" } else { "" };

    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"
 role="img" font-family="{FONT}">
<title>{title}</title>
<rect width="{WIDTH}" height="{height}" rx="6" fill="{paper}"/>
<text x="16" y="28" font-size="16" font-weight="600" fill="{ink}">{title}</text>
<text x="16" y="48" font-size="12" fill="{faint}">{unit}; {better}{form}</text>"#
    );
    for tick in scale.ticks() {
        let (x, label) = (scale.x(tick), if tick == 0.0 { "0".to_owned() } else { tick_label(tick) });
        let _ = writeln!(
            out,
            r#"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="{grid}"/>
<text x="{x:.1}" y="{:.1}" font-size="11" text-anchor="middle" fill="{faint}">{label}</text>"#,
            TOP - 8.0,
            bottom + 14.0
        );
    }
    for (row, bar) in bars.iter().enumerate() {
        draw(&mut out, bar, TOP + STEP * row as f64, &scale, theme);
    }
    legend(&mut out, bottom + 40.0, theme);
    out.push_str("</svg>\n");
    Some(out)
}

fn tick_label(tick: f64) -> String {
    match tick {
        t if t >= 1e6 => format!("{}M", t / 1e6),
        t if t >= 1e4 => format!("{}k", t / 1e3),
        t => format!("{t}"),
    }
}

impl Theme {
    /// Of a bar, its inside and its edge.
    fn colours(&self, kind: Kind) -> (&'static str, &'static str) {
        match kind {
            Kind::Ours => (self.ours, self.ours),
            Kind::Framework => (self.framework, self.framework),
            Kind::Transport => (self.transport, self.framework),
            Kind::Limit => (self.limit, self.framework),
        }
    }
}

fn draw(out: &mut String, bar: &Bar, y: f64, scale: &Scale, theme: &Theme) {
    let Spread { median, low, high } = bar.spread;
    let (from, to, end) = (scale.x(low), scale.x(high), scale.x(median));
    let (fill, edge) = theme.colours(bar.kind);
    let (middle, weight) = (y + THICK / 2.0, if bar.kind == Kind::Ours { 600 } else { 400 });
    let _ = writeln!(
        out,
        r#"<text x="{:.1}" y="{:.1}" font-size="13" font-weight="{weight}" text-anchor="end" fill="{}">{}</text>
<rect x="{LEFT}" y="{y:.1}" width="{:.1}" height="{THICK}" fill="{fill}" stroke="{edge}"/>
<path d="M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v6M{to:.1} {:.1}v6" stroke="{}" fill="none"/>
<text x="{:.1}" y="{:.1}" font-size="12" font-weight="{weight}" fill="{}">{}</text>"#,
        LEFT - 8.0,
        middle + 4.5,
        theme.ink,
        bar.name,
        (end - LEFT).max(1.0),
        middle - 3.0,
        middle - 3.0,
        theme.ink,
        to.max(end) + 8.0,
        middle + 4.5,
        theme.ink,
        short(median),
    );
}

fn legend(out: &mut String, y: f64, theme: &Theme) {
    let entries = [
        (16.0, Kind::Ours, "rpc"),
        (66.0, Kind::Framework, "frameworks"),
        (172.0, Kind::Transport, "transports"),
        (272.0, Kind::Limit, "limits"),
    ];
    for (x, kind, label) in entries {
        let (fill, edge) = theme.colours(kind);
        let _ = writeln!(
            out,
            r#"<rect x="{x}" y="{:.1}" width="12" height="12" fill="{fill}" stroke="{edge}"/>
<text x="{:.1}" y="{y:.1}" font-size="12" fill="{}">{label}</text>"#,
            y - 10.0,
            x + 18.0,
            theme.faint
        );
    }
    let _ = writeln!(
        out,
        r#"<text x="{:.1}" y="{y:.1}" font-size="12" text-anchor="end"
 fill="{}">bar: median of the rounds; line: lowest to highest</text>"#,
        WIDTH - 16.0,
        theme.faint
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(figures: &[f64]) -> Vec<Bar> {
        let bar = |median: &f64| Bar {
            name: "x",
            spread: Spread { median: *median, low: 0.9 * median, high: 1.1 * median },
            kind: Kind::Framework,
        };
        figures.iter().map(bar).collect()
    }

    fn scale(bars: &[Bar]) -> Scale {
        Scale::new(&bars.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_limit_is_left_out_where_it_bounds_nothing() {
        let mut bars = bars(&[0.3, 30.0, 80.0]);
        assert_eq!(comparable(&bars).len(), 3);
        bars[0].kind = Kind::Limit;
        assert_eq!(comparable(&bars).len(), 2);
        bars[0].spread.median = 2.0;
        assert_eq!(comparable(&bars).len(), 3);
        bars.truncate(1);
        assert_eq!(comparable(&bars).len(), 1);
    }

    #[test]
    fn a_bar_twice_as_long_is_twice_as_much_unless_the_scale_is_logarithmic() {
        let near = scale(&bars(&[100.0, 200.0]));
        assert!(!near.log);
        assert!(((near.x(200.0) - LEFT) / (near.x(100.0) - LEFT) - 2.0).abs() < 1e-9);
        let far = scale(&bars(&[1e3, 1e6]));
        assert!(far.log);
        assert!(((far.x(1e5) - far.x(1e4)) - (far.x(1e6) - far.x(1e5))).abs() < 1e-9);
    }

    #[test]
    fn nothing_lies_outside_of_the_picture() {
        for figures in [&[3.0, 4.0][..], &[0.5, 21.0, 80.0], &[1e4, 1.5e7], &[0.0, 7.0]] {
            let bars = bars(figures);
            let scale = scale(&bars);
            let ends = bars.iter().flat_map(|bar| [bar.spread.low, bar.spread.median, bar.spread.high]);
            for value in ends.chain(scale.ticks()) {
                assert!((LEFT - 1e-6..=RIGHT + 1e-6).contains(&scale.x(value)), "{value} of {figures:?}");
            }
            assert!(scale.ticks().len() >= 2, "{figures:?}");
        }
    }
}
