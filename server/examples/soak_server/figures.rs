//! Figures and the goals that they are held against.

/// What was measured.
#[derive(Debug, Clone)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
    remark: String,
}

/// What was aimed at.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) -> Self {
        Self { name: name.into(), value, unit, goal, remark: String::new() }
    }

    pub fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = remark.into();
        self
    }

    /// A line of a table in Markdown.
    pub fn line(&self) -> String {
        let (goal, met) = match self.goal {
            Goal::None => (String::new(), ""),
            Goal::AtMost(most) => (format!("≤ {}", shown(most)), if self.value <= most { "met" } else { "**missed**" }),
            Goal::AtLeast(least) => {
                (format!("≥ {}", shown(least)), if self.value >= least { "met" } else { "**missed**" })
            }
        };
        format!("| {} | {} {} | {goal} | {met} | {} |", self.name, shown(self.value), self.unit, self.remark)
    }
}

/// The head of the table.
pub const HEAD: &str = "| | Measured | Goal | | |\n| --- | --- | --- | --- | --- |";

/// A number as people read it.
fn shown(value: f64) -> String {
    match value.abs() {
        1000.0.. => {
            let digits = format!("{:.0}", value.abs());
            let grouped: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
            format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","))
        }
        10.0.. => format!("{value:.1}"),
        _ => format!("{:.2}", value),
    }
}

/// A value that a share of all does not exceed; sorts them.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share).ceil() as usize;
    values.get(index.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}
