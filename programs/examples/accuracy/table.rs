//! Rows as a table, for a terminal and for a document.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What was measured of one engine or file of a peer.
#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    /// Size of the weights' file.
    bytes: u64,
    positions: u64,
    mean_kl: f64,
    kl_99: f64,
    same_best: f64,
    mean_difference: f64,
    perplexity: f64,
}

const HEADS: [&str; 7] =
    ["Weights", "File, MB", "Mean KL, nats", "KL, 99th percentile", "Same best token", "Mean |Δ log p|", "Perplexity"];

impl Row {
    fn cells(&self) -> [String; 7] {
        [
            self.name.clone(),
            format!("{:.1}", self.bytes as f64 / 1e6),
            number(self.mean_kl),
            number(self.kl_99),
            format!("{:.2} %", 100.0 * self.same_best),
            number(self.mean_difference),
            format!("{:.4}", self.perplexity),
        ]
    }
}

/// Three digits that count, without an exponent.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    format!("{value:.*}", usize::try_from(digits).unwrap_or(0))
}

pub(crate) fn run(output: &Path, files: &[PathBuf]) -> Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    for path in files {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        rows.extend(serde_json::from_slice::<Vec<Row>>(&text).with_context(|| path.display().to_string())?);
    }
    let cells: Vec<_> = [HEADS.map(str::to_owned)].into_iter().chain(rows.iter().map(Row::cells)).collect();
    let widths: [usize; 7] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    for row in &cells {
        println!("{}", line(row).trim_end());
    }
    let mut markdown = String::new();
    for (index, row) in cells.iter().enumerate() {
        // A bar ends a cell.
        let row = row.each_ref().map(|cell| cell.replace('|', "\\|"));
        markdown.push_str(&format!("| {} |\n", row.join(" | ")));
        if index == 0 {
            markdown.push_str(&format!("|{}\n", " --- |".repeat(HEADS.len())));
        }
    }
    let write = |name: &str, content: String| {
        let path = output.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write("accuracy.md", markdown)?;
    write("accuracy.json", serde_json::to_string_pretty(&rows)? + "\n")
}
